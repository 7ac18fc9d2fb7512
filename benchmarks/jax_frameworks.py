"""Sparse attention inside jax.jit on the CPU: what a call costs the host, and steps beside jax.nn's attention.

    python benchmarks/jax_frameworks.py            # writes benchmarks/results/jax_frameworks.{json,md}

Host cost: calls so small that nothing else is left, one after the other, each waited for. Steps: batch 1, heads 8,
n 4096, head_dim 64, all cores; interleaved rounds with pauses, medians. jax.nn.dot_product_attention has the mask as a
bool array; a training step is value_and_grad of a sum in q, k and v.
"""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from cpu_attention import HEAD_DIM, HEADS, SEQ, hardware
from results_files import options, save
from tables import markdown_table
from turns import CALLS, in_turns

import splat_numba as splat
from splat_numba.integrations.jax import attention
from splat_numba.runtime.device import cores

TINY = 16  # tokens
CASES = {
    "window(512, 0)": splat.window(512, 0), "causal": splat.causal(), "window(128)": splat.window(128),
    "strided(16)": splat.strided(16), "longformer(256, 64)": splat.longformer(256, 64),
}  # fmt: skip
SPLAT, NUMPY, DENSE = "splat, jitted", "splat, NumPy", "jax.nn, masked"
FORWARD, STEP = "forward", "training step"


def ours(mask: Any) -> Any:
    """Attention as a function of arrays."""
    return lambda q, k, v: attention(q, k, v, mask)


def dense(mask: Any, tokens: int) -> Any:
    """JAX's own with the mask as an array."""
    kept = jnp.asarray(splat.ACSR.from_pattern(mask, tokens, tokens).to_dense())[None, None]
    return lambda q, k, v: jax.nn.dot_product_attention(q, k, v, mask=kept)


def stepped(attend: Any) -> Any:
    """A jitted training step."""
    return jax.jit(jax.value_and_grad(lambda *x: attend(*x).astype(jnp.float32).sum(), (0, 1, 2)))


def host_costs(calls: int) -> dict[str, dict[str, float]]:
    """Seconds of a jitted call, the least and the median, by what it does: interleaved, in chunks."""
    q = jnp.ones((1, TINY, 1, 16))
    mask = splat.causal()
    runs = {
        "x + 1": jax.jit(lambda x: x + 1),
        "splat.attention": jax.jit(lambda x: attention(x, x, x, mask)),
        "jax.nn.dot_product_attention": jax.jit(lambda x: dense(mask, TINY)(x, x, x)),
        "splat.attention by pure_callback": jax.jit(
            lambda x: jax.pure_callback(
                lambda y: np.asarray(splat.attention(*[np.asarray(y)] * 3, mask, layout="bshd")), q, x
            )
        ),
    }
    found: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run(q).block_until_ready()
    for _ in range(10):
        for name, run in runs.items():
            for _ in range(calls // 10):
                begin = time.perf_counter()
                run(q).block_until_ready()
                found[name].append(time.perf_counter() - begin)
    return {name: {"least": min(seconds), "median": median(seconds)} for name, seconds in found.items()}


def contenders(mask: Any, dtype: str) -> dict[str, dict[str, Any]]:
    """What is timed for a case, by kind and name."""
    rng = np.random.default_rng(0)
    arrays = [jnp.asarray(rng.standard_normal((1, SEQ, HEADS, HEAD_DIM)), dtype) for _ in range(3)]
    host = [np.asarray(one) for one in arrays]
    dout = np.ones_like(host[0])
    found: dict[str, dict[str, Any]] = {FORWARD: {}, STEP: {}}
    for name, attend in ((SPLAT, ours(mask)), (DENSE, dense(mask, SEQ))):
        forward, step = jax.jit(attend), stepped(attend)
        found[FORWARD][name] = lambda run=forward: jax.block_until_ready(run(*arrays))
        found[STEP][name] = lambda run=step: jax.block_until_ready(run(*arrays))
    found[FORWARD][NUMPY] = lambda: splat.attention(*host, mask, layout="bshd")
    found[STEP][NUMPY] = lambda: splat.attention_vjp(*host, mask, layout="bshd")[1](dout)
    return found


def measure(rounds: int, dtype: str) -> dict[str, dict[str, dict[str, float]]]:
    """Medians in seconds, by case, kind and contender."""
    rows: dict[str, dict[str, dict[str, float]]] = {name: {FORWARD: {}, STEP: {}} for name in CASES}
    for name, mask in CASES.items():
        calls = {(kind, one): call for kind, of in contenders(mask, dtype).items() for one, call in of.items()}
        for (kind, one), seconds in in_turns(calls, rounds).items():
            rows[name][kind][one] = median(seconds)
    return rows


def host_table(found: dict[str, dict[str, float]]) -> str:
    """Markdown: microseconds."""
    rows = [[name, *(f"{one[which] * 1e6:.1f}" for which in ("least", "median"))] for name, one in found.items()]
    return markdown_table(("jitted call", "least us", "median us"), rows)


def step_table(rows: dict[str, dict[str, dict[str, float]]]) -> str:
    """Markdown: milliseconds, and ratios."""
    lines = [
        [name, kind, *(f"{row[one] * 1e3:.1f}" for one in (SPLAT, NUMPY, DENSE)), f"{row[DENSE] / row[SPLAT]:.1f}x"]
        for name, kinds in rows.items()
        for kind, row in kinds.items()
    ]
    return markdown_table(
        ("pattern", "", "splat, jitted ms", "splat, NumPy ms", "jax.nn, masked ms", "jax.nn / splat"), lines
    )


def main() -> None:
    """Measure, print and write the results."""
    parser = options(__doc__, rounds=3)
    parser.add_argument("--calls", type=int, default=5000)
    args = parser.parse_args()
    found: dict[str, Any] = {"hardware": hardware(("numpy", "numba", "jax")), "cores": cores()}
    found["host"] = host_costs(args.calls)
    found["float32"], found["bfloat16"] = (measure(args.rounds, dtype) for dtype in ("float32", "bfloat16"))
    text = "\n".join([
        f"# Inside JAX, on the CPU\n\n{found['hardware']}. Made by `python benchmarks/{Path(__file__).name}`.\n",
        f"What a call costs the host: {TINY} tokens, one head, {args.calls} calls of each, each waited for.\n",
        host_table(found["host"]),
        f"\nBatch 1, heads {HEADS}, n {SEQ}, head_dim {HEAD_DIM}; medians of {args.rounds} interleaved rounds of "
        f"{CALLS} calls. A training step is value_and_grad of a sum.",
        "\n## float32\n", step_table(found["float32"]), "\n## bfloat16\n", step_table(found["bfloat16"]), "",
    ])  # fmt: skip
    save(args.output, "jax_frameworks", found, text)
    print(text)


if __name__ == "__main__":
    main()
