"""What needs a process of its own: another one that reads JAX's compilation cache, several devices, a sudden end."""

import os
import subprocess
import sys
from textwrap import dedent

import pytest

pytest.importorskip("jax", reason="JAX is not installed")

HEAD = """
import contextlib
import numpy as np, jax, jax.numpy as jnp
import splat_numba as splat
from splat_numba.integrations.jax import attention
q = jnp.asarray(np.random.default_rng(0).standard_normal((2, 40, 2, 16), np.float32))
k, v = q[::-1] * 2, q[:, ::-1]
arrays = tuple(map(np.asarray, (q, k, v)))
"""


def run(text, **environment):
    done = subprocess.run(
        [sys.executable, "-c", HEAD + dedent(text)], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split("\n")[:-1]


CACHED = """
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
seen = []
jax.monitoring.register_event_listener(lambda event, **facts: seen.append(event))
for width in ORDER:
    mask = splat.ACSR.from_pattern(splat.window(5, width), 40, 40)
    dout = np.ones(q.shape, np.float32)
    del seen[:]
    step = jax.jit(lambda q, k, v: jax.vjp(lambda *x: attention(*x, mask), q, k, v)[1](dout))
    found = step(q, k, v)
    wanted = splat.attention_vjp(*arrays, mask, layout="bshd")[1](dout)
    right = all(np.array_equal(one, other) for one, other in zip(found, wanted))
    print(width, right, any("cache_hit" in one for one in seen))
"""


def test_another_process_binds_the_right_kernels_from_jaxs_cache(tmp_path):
    """In another order, after another program: numbers or addresses of the first process would bind a wrong one.

    Stored masks share their kernels' text, so that only tables tell them apart.
    """
    folder = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path)}
    assert run(CACHED.replace("ORDER", "(5, 0)"), **folder) == ["5 True False", "0 True False"]
    assert run(CACHED.replace("ORDER", "(3, 0, 5)"), **folder) == ["3 True False", "0 True True", "5 True True"]


SHARDED = """
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P
mesh = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Auto,))
attend = lambda q, k, v: attention(q, k, v, splat.window(5))
def close(run, *arrays, alone=attend):
    loss = lambda f: lambda *x: (f(*x) ** 2).sum()
    found = jax.jit(jax.value_and_grad(loss(run), (0, 1, 2)))(*arrays)
    wanted = jax.value_and_grad(loss(alone), (0, 1, 2))(*arrays)
    return all(np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted)))
batch = jax.shard_map(attend, mesh=mesh, in_specs=P("x"), out_specs=P("x"))
print("batch", close(batch, q, k, v))
print("text", "all-gather" in jax.jit(batch).lower(*(jax.device_put(x, NamedSharding(mesh, P("x"))) for x in (q, k, v)))
      .compile().as_text())
heads = jax.shard_map(attend, mesh=mesh, in_specs=P(None, None, "x"), out_specs=P(None, None, "x"))
print("heads", close(heads, q, k, v))
shared = jax.shard_map(attend, mesh=mesh, in_specs=(P(None, None, "x"), P(), P()), out_specs=P(None, None, "x"))
print("shared keys", close(shared, q, k[:, :, :1], v[:, :, :1]))
mapped = jax.shard_map(jax.vmap(lambda q, k, v: attend(q, k, v)), mesh=mesh, in_specs=P("x"), out_specs=P("x"))
print("vmap inside", close(mapped, q, k, v))
entries = [x[:, None] for x in (q, k, v)]  # of one device each
print("pmap", np.array_equal(jax.pmap(attend)(*entries)[:, 0], attend(q, k, v)), np.array_equal(
    jax.pmap(jax.grad(lambda *x: attend(*x).sum()))(*entries)[:, 0], jax.grad(lambda *x: attend(*x).sum())(q, k, v)))
def jitted(name, spec, arrays, attend=attend):
    split = [jax.device_put(x, NamedSharding(mesh, spec)) if x.ndim > 1 else x for x in arrays]
    right = np.array_equal(jax.jit(attend)(*split), attend(*arrays)) and close(attend, *split, alone=attend)
    print(name, right, "all-gather" in jax.jit(attend).lower(*split).compile().as_text())
def of(mask, **options):
    return lambda q, k, v: attention(q, k, v, mask, **options)
jitted("batch", P("x"), (q, k, v))
jitted("heads", P(None, None, "x"), (q, k, v))
jitted("grouped heads", P(None, None, "x"), (q.reshape(2, 20, 4, 16), k[:, :20], v[:, :20]))
jitted("shared keys", P("x"), (q, k[:, :, :1], v[:, :, :1]))
jitted("a mask a head", P(None, None, "x"), (q, k, v), of([splat.window(5), splat.sinks(3)]))
jitted("tokens", P(None, "x"), (q, k, v))
jitted("dims", P(None, None, None, "x"), (q, k, v))
jitted("lengths", P("x"), (q, k, v), of(splat.window(5), kv_lengths=np.array([40, 9])))
jitted("heads before tokens", P(None, "x"), (q, k, v), of(splat.window(5), layout="bhsd"))
jitted("mapped", P("x"), (q, k, v), jax.vmap(attend))
import flurka_numba
proj = jnp.asarray(np.random.default_rng(1).standard_normal((4, 2), np.float32))
flurka = lambda q, k, proj: flurka_numba.attention(q, k, k, proj)  # two tokens, forty heads
apart = jax.shard_map(flurka, mesh=mesh, in_specs=(P("x"), P("x"), P()), out_specs=P("x"))
print("a shared projection", close(apart, q, k, proj, alone=flurka))
split = [jax.device_put(x, NamedSharding(mesh, P("x"))) for x in (q, k)]
print("sharded", close(flurka, *split, proj, alone=flurka))
"""
EXPLICIT = """
loss = lambda f: lambda *x: (f(*x) ** 2).sum()
explicit = jax.make_mesh((2,), ("x",), axis_types=(AxisType.Explicit,))
def typed(name, spec, attend=attend, arrays=(q, k, v)):
    split = [jax.device_put(x, NamedSharding(explicit, spec)) if x.ndim > 2 else x for x in arrays]
    step = jax.jit(jax.value_and_grad(loss(attend), (0, 1)))
    wanted = (attend(*arrays), *jax.value_and_grad(loss(attend), (0, 1))(*arrays)[1])
    text = jax.jit(attend).lower(*split).compile().as_text() + step.lower(*split).compile().as_text()
    for place in (None, explicit):
        with jax.set_mesh(place) if place else contextlib.nullcontext():
            found = (jax.jit(attend)(*split), *step(*split)[1])
        right = all(np.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(found, wanted, strict=True))
        print(name, right, *dict.fromkeys(str(jax.typeof(one)) for one in found), "all-gather" in text)
typed("batch", P("x"))
typed("heads", P(None, None, "x"))
typed("tokens", P(None, "x"))
typed("mapped", P(None, None, "x"), jax.vmap(attend))
typed("a mapped axis that is split", P("x"), jax.vmap(attend))
typed("flurka", P("x"), flurka, (q, k, proj))
"""


def test_shard_map_and_sharded_arrays():
    """Batch entries and heads stay where they are; tokens are gathered, and so are heads with masks of their own.

    On a mesh with explicit axes, in its context or without one, types of results say how they are split.
    """
    printed = run(SHARDED + EXPLICIT, XLA_FLAGS="--xla_force_host_platform_device_count=2")
    assert printed == [
        "batch True", "text False", "heads True", "shared keys True", "vmap inside True", "pmap True True",
        "batch True False",
        "heads True False",
        "grouped heads True False",
        "shared keys True False",
        "a mask a head True True",
        "tokens True True",
        "dims True True",
        "lengths True False",
        "heads before tokens True False",
        "mapped True False",
        "a shared projection True", "sharded True",
        *("batch True float32[2@x,40,2,16] False",) * 2,
        *("heads True float32[2,40,2@x,16] False",) * 2,
        *("tokens True float32[2,40,2,16] float32[2,40@x,2,16] True",) * 2,
        *("mapped True float32[2,40,2@x,16] False",) * 2,
        *("a mapped axis that is split True float32[2@x,40,2,16] False",) * 2,
        *("flurka True float32[2,40,2,16] float32[2@x,40,2,16] True",) * 2,
    ]  # fmt: skip


def test_a_process_may_end_while_xla_computes():
    text = """
    large = jnp.ones((4, 4096, 8, 16))
    step = jax.jit(lambda q: attention(q, q, q, splat.window(5)))
    step(large).block_until_ready()
    for _ in range(20):
        found = step(large)
    print("ended")
    """
    assert run(text) == ["ended"]
