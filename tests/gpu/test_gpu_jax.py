"""attention within JAX's transforms on a GPU, beside calls outside of them: the same bits, whatever the transform."""

import os
import subprocess
import sys
import threading
from textwrap import dedent

import numpy as np
import pytest

import splat_numba as splat
from tests.profiles import by_place

jax = pytest.importorskip("jax")
jnp = pytest.importorskip("jax.numpy")
pytestmark = pytest.mark.gpu
MASK = splat.window(100, 0) | splat.sinks(4)
SHAPES = (2, 4, 300, 64), (2, 2, 300, 64), (2, 2, 300, 64)
EACH = [splat.window(100, 0), splat.causal(), splat.strided(7), splat.window(20)]  # a mask a head
every_dtype = pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])


@pytest.fixture
def gpu():
    try:
        return jax.devices("gpu")[0]
    except RuntimeError:
        pytest.skip("JAX without a GPU")


def arrays_on(device, dtype="bfloat16", shapes=SHAPES):
    rng = np.random.default_rng(0)
    return [jax.device_put(jnp.asarray(rng.standard_normal(shape), dtype), device) for shape in shapes]


@pytest.fixture
def given(gpu):
    return arrays_on(gpu)


def attend(q, k, v):
    return splat.attention(q, k, v, MASK)


def loss_of(function):
    return lambda q, k, v: (function(q, k, v).astype(jnp.float32) ** 2).sum()


def check_gradients(found, arrays, mask=MASK, **options):
    """Of loss_of(attention), against attention_vjp outside of transforms."""
    out, vjp = splat.attention_vjp(*arrays, mask, **options)
    dout = (2 * out.astype(jnp.float32)).astype(out.dtype)
    for one, two in zip(found, vjp(dout), strict=True):
        np.testing.assert_array_equal(one, two)


def test_arrays_of_the_cpu_are_taken_within_transforms(gpu):
    assert gpu.platform == "gpu"
    cpu, rng = jax.devices("cpu")[0], np.random.default_rng(0)
    plain = [rng.standard_normal(shape, np.float32) for shape in SHAPES]
    there = [jax.device_put(one, cpu) for one in plain]
    np.testing.assert_array_equal(jax.jit(attend)(*there), splat.attention(*plain, MASK))
    out, vjp = splat.attention_vjp(*plain, MASK)
    for found, wanted in zip(jax.jit(jax.grad(loss_of(attend), (0, 1, 2)))(*there), vjp(2 * out), strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_one_function_runs_on_either_device(gpu):
    step = jax.jit(attend)
    here, there = arrays_on(gpu, "float32"), arrays_on(jax.devices("cpu")[0], "float32")
    np.testing.assert_array_equal(step(*here), attend(*here))
    np.testing.assert_array_equal(step(*there), splat.attention(*map(np.asarray, there), MASK))


@every_dtype
def test_jit(gpu, dtype):
    given = arrays_on(gpu, dtype)
    found, lse = jax.jit(lambda *x: splat.attention(*x, MASK, return_lse=True))(*given)
    out, levels = splat.attention(*given, MASK, return_lse=True)
    np.testing.assert_array_equal(found, out)
    np.testing.assert_array_equal(lse, levels)


@every_dtype
def test_grad(gpu, dtype):
    given = arrays_on(gpu, dtype)
    check_gradients(jax.jit(jax.grad(loss_of(attend), (0, 1, 2)))(*given), given)


def test_value_and_grad_and_jacrev(given):
    value, found = jax.jit(jax.value_and_grad(loss_of(attend), (0, 1, 2)))(*given)
    np.testing.assert_allclose(value, loss_of(attend)(*given), rtol=1e-5)
    check_gradients(found, given)
    small = [one[:1, :, :8] for one in given]
    assert jax.jacrev(lambda q: attend(q, *small[1:]).sum((0, 1, 3)))(small[0]).shape == (8, *small[0].shape)


def test_gradients_of_lse(given):
    def both(q, k, v):
        out, lse = splat.attention(q, k, v, MASK, return_lse=True)
        return out.astype(jnp.float32).sum() + (lse**2).sum()

    found = jax.jit(jax.grad(both, (0, 1, 2)))(*given)
    out, lse = splat.attention(*given, MASK, return_lse=True)
    wanted = splat.attention_backward(jnp.ones_like(out), *given, out, lse, MASK, dlse=2 * lse)
    for one, two in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, two)


def test_vmap(given):
    q, k, v = given
    found = jax.vmap(attend, in_axes=(0, None, None))(jnp.stack([q, -q]), k, v)
    np.testing.assert_array_equal(found, jnp.stack([attend(q, k, v), attend(-q, k, v)]))


def test_vmap_of_grad_and_grad_of_vmap(given):
    q, k, v = given
    both = jnp.stack([q, -q])
    each = jax.vmap(jax.grad(loss_of(attend)), in_axes=(0, None, None))(both, k, v)
    whole = jax.grad(lambda x: jax.vmap(loss_of(attend), in_axes=(0, None, None))(x, k, v).sum())(both)
    np.testing.assert_array_equal(each, whole)
    np.testing.assert_array_equal(each[0], jax.grad(loss_of(attend))(q, k, v))


def test_scan(given):
    q, k, v = given
    found, _ = jax.jit(lambda q: jax.lax.scan(lambda x, _: (attend(x, k, v), None), q, length=20))(q)
    wanted = q
    for _ in range(20):
        wanted = attend(wanted, k, v)
    np.testing.assert_array_equal(found, wanted)


def test_grad_of_scan_and_of_remat(given):
    q, k, v = given

    def twice(x, attend):
        return (jax.lax.scan(lambda x, _: (attend(x, k, v), None), x, length=2)[0].astype(jnp.float32) ** 2).sum()

    plain, again = (jax.jit(jax.grad(lambda x, f=f: twice(x, f)))(q) for f in (attend, jax.checkpoint(attend)))
    np.testing.assert_array_equal(plain, again)
    middle, first = jax.vjp(lambda x: attend(x, k, v), q)
    np.testing.assert_array_equal(plain, first(jax.grad(lambda x: loss_of(attend)(x, k, v))(middle))[0])


def test_command_buffers(given):
    """A chain of calls, which XLA captures into a CUDA graph where all of them may be, replayed over other numbers."""
    q, k, v = given

    @jax.jit
    def chain(q):
        for _ in range(8):
            q = attend(q, k, v)
        return q

    for factor in (1, -1, 2, 3):
        wanted = q * factor
        for _ in range(8):
            wanted = attend(wanted, k, v)
        np.testing.assert_array_equal(chain(q * factor), wanted)


def test_a_training_step_again_and_again(given):
    """Captured after a few runs: gradients have sums to be cleared, and launches that overlap outside of graphs."""
    step = jax.jit(jax.grad(lambda q, k, v: loss_of(attend)(attend(q, k, v), k, v), (0, 1, 2)))
    first = step(*given)
    for _ in range(6):
        for one, two in zip(step(*given), first, strict=True):
            np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("lengths", [[300, 17], [0, 300]])
def test_key_lengths(given, lengths):
    known, traced = np.array(lengths), jnp.array(lengths)
    wanted = splat.attention(*given, MASK, kv_lengths=known)
    np.testing.assert_array_equal(jax.jit(lambda *x: splat.attention(*x, MASK, kv_lengths=known))(*given), wanted)
    found = jax.jit(lambda n, *x: splat.attention(*x, MASK, kv_lengths=n))(traced, *given)
    np.testing.assert_array_equal(found, wanted)
    ragged = loss_of(lambda *x: splat.attention(*x, MASK, kv_lengths=known))
    check_gradients(jax.grad(ragged, (0, 1, 2))(*given), given, kv_lengths=known)


def test_a_mask_a_head(given):
    def several(q, k, v):
        return splat.attention(q, k, v, EACH)

    np.testing.assert_array_equal(jax.jit(several)(*given), several(*given))
    check_gradients(jax.jit(jax.grad(loss_of(several), (0, 1, 2)))(*given), given, EACH)


def test_a_mask_of_tables(given):
    mask = splat.ACSR.from_pattern(MASK, 300, 300)
    found = jax.jit(lambda *x: splat.attention(*x, mask))(*given)
    np.testing.assert_array_equal(found, splat.attention(*given, mask))


@pytest.mark.parametrize("target", [None, "simt"])
def test_several_passes(gpu, target):
    mask = splat.sparse_transformer_strided(32)
    given = arrays_on(gpu, shapes=[(1, 2, 4096, 64)] * 3)
    sizes = {"seq_q": 4096, "seq_kv": 4096, "heads_q": 2, "head_dim": 64, "dtype": "bfloat16", "batch": 1}
    plan = splat.plan(mask, **sizes, backend="cuda", target=target, backward=True)
    assert min(map(len, (plan.passes, plan.backward.queries, plan.backward.keys))) > 1

    def attend(q, k, v):
        return splat.attention(q, k, v, mask, target=target)

    np.testing.assert_array_equal(jax.jit(attend)(*given), attend(*given))
    check_gradients(jax.jit(jax.grad(loss_of(attend), (0, 1, 2)))(*given), given, mask, target=target)


def test_layouts_and_flax_order(gpu):
    from splat_numba.integrations.jax import attention

    given = arrays_on(gpu, shapes=[(2, 300, 4, 64), (2, 300, 2, 64), (2, 300, 2, 64)])
    wanted = splat.attention(*given, MASK, layout="bshd")
    np.testing.assert_array_equal(attention(*given, MASK), wanted)
    np.testing.assert_array_equal(jax.jit(lambda *x: attention(*x, MASK))(*given), wanted)
    grads = jax.grad(loss_of(lambda *x: attention(*x, MASK)), (0, 1, 2))(*given)
    check_gradients(grads, given, layout="bshd")


@pytest.mark.parametrize(("dim", "dtype"), by_place([1, 20, 77, 128, 256], ["bfloat16", "float32"]))
def test_head_dims(gpu, dim, dtype):
    given = arrays_on(gpu, dtype, [(*shape[:3], dim) for shape in SHAPES])
    np.testing.assert_array_equal(jax.jit(attend)(*given), attend(*given))
    check_gradients(jax.jit(jax.grad(loss_of(attend), (0, 1, 2)))(*given), given)


@pytest.mark.parametrize("target", ["sm_90a", "sm80", "simt"])
def test_targets(given, target):
    def on_target(q, k, v):
        return splat.attention(q, k, v, MASK, target=target)

    try:
        wanted = on_target(*given)
    except splat.BackendError as error:
        pytest.skip(str(error))
    np.testing.assert_array_equal(jax.jit(on_target)(*given), wanted)
    check_gradients(jax.jit(jax.grad(loss_of(on_target), (0, 1, 2)))(*given), given, target=target)


def test_empty_arrays(gpu):
    def attend(q, k, v):
        return splat.attention(q, k, v, splat.window(100))

    for shape in [(0, 4, 300, 64), (2, 4, 0, 64)]:
        given = arrays_on(gpu, shapes=[shape, (shape[0], 2, 300, 64), (shape[0], 2, 300, 64)])
        assert jax.jit(attend)(*given).shape == shape
        assert jax.grad(loss_of(attend))(*given).shape == shape
    given = arrays_on(gpu, shapes=[(2, 4, 300, 64), (2, 2, 0, 64), (2, 2, 0, 64)])
    assert not np.asarray(jax.jit(attend)(*given)).any()


def test_float64(gpu):
    with jax.enable_x64(True) if hasattr(jax, "enable_x64") else jax.experimental.enable_x64():
        given = arrays_on(gpu, "float64", [(1, 2, 100, 64)] * 3)
        np.testing.assert_array_equal(jax.jit(attend)(*given), attend(*given))
        check_gradients(jax.grad(loss_of(attend), (0, 1, 2))(*given), given)


def test_donation(given):
    q, k, v = given
    wanted = attend(q, k, v)
    step = jax.jit(attend, donate_argnums=0)
    found = step(q + 0, k, v)
    for _ in range(5):
        np.testing.assert_array_equal(found, wanted)
        found = step(q + 0, k, v)


def test_two_threads(given):
    q, k, v = given
    step = jax.jit(jax.grad(loss_of(attend), (0, 1, 2)))
    wanted = {factor: step(q * factor, k, v) for factor in (1, 2)}
    wrong = []

    def repeat(factor):
        for _ in range(50):
            found = step(q * factor, k, v)
            if not all(np.array_equal(*pair) for pair in zip(found, wanted[factor], strict=True)):
                wrong.append(factor)

    threads = [threading.Thread(target=repeat, args=(factor,), daemon=True) for factor in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


def test_many_places_in_memory(given):
    """More sets of buffers than are made at once: tensor maps belong to addresses."""
    q, k, v = given
    step, wanted = jax.jit(attend), attend(q, k, v)
    held = [(q + 0, k + 0, v + 0) for _ in range(80)]
    for _ in range(2):
        for found in [step(*one) for one in held]:
            np.testing.assert_array_equal(found, wanted)


def test_shard_map_over_one_device(gpu, given):
    from jax.sharding import AxisType, PartitionSpec

    mesh = jax.make_mesh((1,), ("x",), axis_types=(AxisType.Auto,), devices=[gpu])
    spec = PartitionSpec("x")
    split = jax.shard_map(attend, mesh=mesh, in_specs=spec, out_specs=spec)
    np.testing.assert_array_equal(jax.jit(split)(*given), attend(*given))
    check_gradients(jax.jit(jax.grad(loss_of(split), (0, 1, 2)))(*given), given)


def test_a_backend_that_was_asked_for(given):
    assert jax.jit(lambda *x: splat.attention(*x, MASK, backend="cuda"))(*given).shape == given[0].shape
    with pytest.raises(splat.BackendError, match="got backend 'cpu'"):
        jax.jit(lambda *x: splat.attention(*x, MASK, backend="cpu"))(*given)


CACHED = """
import numpy as np, jax, jax.numpy as jnp
import splat_numba as splat
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
seen = []
jax.monitoring.register_event_listener(lambda event, **facts: seen.append(event))
q = jnp.asarray(np.random.default_rng(0).standard_normal((2, 4, 300, 64)), jnp.bfloat16)
for width in ORDER:
    mask = splat.ACSR.from_pattern(splat.window(50, width), 300, 300)
    del seen[:]
    step = jax.jit(lambda q: jax.vjp(lambda *x: splat.attention(*x, mask), q, -q, q)[1](q))
    found = jax.block_until_ready(step(q))
    hit = any("cache_hit" in one for one in seen)
    wanted = splat.attention_vjp(q, -q, q, mask)[1](q)
    print(width, all(np.array_equal(one, other) for one, other in zip(found, wanted)), hit)
"""


def test_another_process_binds_the_right_kernels_from_jaxs_cache(gpu, tmp_path):  # noqa: ARG001 - there must be one
    environment = {"JAX_COMPILATION_CACHE_DIR": str(tmp_path), "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}

    def run(order):
        done = subprocess.run(
            [sys.executable, "-c", dedent(CACHED.replace("ORDER", order))], capture_output=True, text=True, check=False,
            stdin=subprocess.DEVNULL, timeout=300, env={**os.environ, **environment},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.split("\n")[:-1]

    assert run("(5, 0)") == ["5 True False", "0 True False"]
    assert run("(3, 0, 5)") == ["3 True False", "0 True True", "5 True True"]
