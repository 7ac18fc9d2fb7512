"""Sparse attention inside jax.jit on a GPU: what a call costs the host, and steps beside jax.nn's attention.

    python benchmarks/jax_gpu.py            # writes benchmarks/results/jax_gpu.{json,md}

Host cost: as benchmarks/jax_frameworks.py has it, on the GPU. Steps: window(512, 0) over n 8192, bfloat16, batch 1, 16
heads; so many calls are given to the GPU one after the other, and waited for once; interleaved rounds, medians.
jax.nn.dot_product_attention has the mask as a bool array, or as local_window_size where an implementation takes that.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_frameworks import FORWARD, STEP, host_costs, host_table, ours, stepped
from results_files import options, save
from tables import markdown_table

import splat_numba as splat

SEQ, HEADS, WINDOW, DIMS = 8192, 16, 512, (64, 128)
SPLAT, EAGER = "splat, jitted", "splat, outside of jit"
XLA, CUDNN, LOCAL = "jax.nn, xla, mask", "jax.nn, cudnn, mask", "jax.nn, cudnn, local window"
NAMES = (SPLAT, EAGER, XLA, CUDNN, LOCAL)
CALLS = 20  # given to the GPU at once
Calls = dict[str, dict[str, Callable[[], Any]]]


def peers(mask: Any) -> dict[str, Callable[..., Any]]:
    """jax.nn's attention as functions of q, k and v."""
    kept = jnp.asarray(splat.ACSR.from_pattern(mask, SEQ, SEQ).to_dense())[None, None]
    attend = jax.nn.dot_product_attention
    return {
        XLA: lambda q, k, v: attend(q, k, v, mask=kept, implementation="xla"),
        CUDNN: lambda q, k, v: attend(q, k, v, mask=kept, implementation="cudnn"),
        LOCAL: lambda q, k, v: attend(
            q, k, v, is_causal=True, local_window_size=(WINDOW, 0), implementation="cudnn"
        ),
    }  # fmt: skip


def contenders(dim: int) -> tuple[Calls, dict[str, str]]:
    """What is timed for a head_dim, by kind and name, and what those raise that cannot be; all have been called."""
    rng, mask = np.random.default_rng(0), splat.window(WINDOW, 0)
    arrays = [jnp.asarray(rng.standard_normal((1, SEQ, HEADS, dim)), jnp.bfloat16) for _ in range(3)]
    dout, errors = jnp.ones_like(arrays[0]), dict[str, str]()
    found: Calls = {FORWARD: {}, STEP: {}}
    for name, attend in {SPLAT: ours(mask), **peers(mask)}.items():
        for kind, run in ((FORWARD, jax.jit(attend)), (STEP, stepped(attend))):
            try:
                jax.block_until_ready(run(*arrays))
            except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
                errors[f"{name}, {kind}"] = f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
                continue
            found[kind][name] = lambda run=run: run(*arrays)
    found[FORWARD][EAGER] = lambda: splat.attention(*arrays, mask, layout="bshd")
    found[STEP][EAGER] = lambda: splat.attention_vjp(*arrays, mask, layout="bshd")[1](dout)
    return found, errors


def check(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """The largest difference of a contender's result from our own."""
    wanted = np.asarray(calls[SPLAT](), np.float32)
    return {name: float(np.abs(np.asarray(call(), np.float32) - wanted).max()) for name, call in calls.items()}


def measure(calls: Calls, rounds: int) -> dict[str, dict[str, float]]:
    """Medians in seconds of a call, by kind and name."""
    times: dict[str, dict[str, list[float]]] = {kind: {name: [] for name in of} for kind, of in calls.items()}
    for _ in range(rounds):
        for kind, of_kind in calls.items():
            for name, call in of_kind.items():
                jax.block_until_ready(call())
                begin = time.perf_counter()
                for _ in range(CALLS):
                    last = call()
                jax.block_until_ready(last)
                times[kind][name].append((time.perf_counter() - begin) / CALLS)
    return {kind: {name: median(seconds) for name, seconds in of.items()} for kind, of in times.items()}


def step_table(rows: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown: milliseconds."""
    lines = [
        [dim, kind, *(f"{row[name] * 1e3:.3f}" if name in row else "-" for name in NAMES)]
        for dim, kinds in rows.items()
        for kind, row in kinds.items()
    ]
    return markdown_table(("head_dim", "", *(f"{name} ms" for name in NAMES)), lines)


def main() -> None:
    """Measure, print and write the results."""
    parser = options(__doc__, rounds=9)
    parser.add_argument("--calls", type=int, default=2000)
    args = parser.parse_args()
    device = jax.devices("gpu")[0]
    found: dict[str, Any] = {"hardware": f"{device.device_kind}, jax {jax.__version__}", "errors": {}, "steps": {}}
    found["host"], found["differences"] = host_costs(args.calls), {}
    for dim in DIMS:
        calls, errors = contenders(dim)
        found["errors"] |= {f"{dim}, {name}": text for name, text in errors.items()}
        found["differences"][str(dim)] = check(calls[FORWARD])
        found["steps"][str(dim)] = measure(calls, args.rounds)
    text = "\n".join([
        f"# Inside JAX, on a GPU\n\n{found['hardware']}. Made by `python benchmarks/{Path(__file__).name}`.\n",
        f"What a call costs the host: 16 tokens, one head, {args.calls} calls of each, each waited for.\n",
        host_table(found["host"]),
        f"\nwindow({WINDOW}, 0), n {SEQ}, batch 1, {HEADS} heads, bfloat16; medians of {args.rounds} interleaved "
        f"rounds of {CALLS} calls. A training step is value_and_grad of a sum.\n",
        step_table(found["steps"]), "",
        *(f"{name}: {why}\n" for name, why in found["errors"].items()),
    ])  # fmt: skip
    save(args.output, "jax_gpu", found, text)
    print(text)


if __name__ == "__main__":
    main()
