"""Attention by a warp's matrix products (sm80) beside PyTorch's FlashAttention-2, forward and gradients.

    python benchmarks/gpu_sm80.py [--seq 8192] [--json sm80.json]

bfloat16, one process, medians of CUDA events with the L2 cache overwritten before each call; TFLOP/s count the products
of kept pairs, 4 dims a pair forward and 10 dims of the gradients, though two kernels of ours make 14. PyTorch's kernel
takes no mask but causal; its gradients come without those of the forward pass. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from gpu_timing import Budget, describe, event_ms
from torch.nn.attention import SDPBackend, sdpa_kernel

import splat_numba as splat

BATCH, HEADS, DIMS = 2, 16, (64, 128)
MASKS = {"full": splat.full(), "causal": splat.causal(), "window512": splat.window(512)}
DENSE = {"full": False, "causal": True}  # those that PyTorch's kernel takes, by is_causal
BUDGET = Budget()


def measure(dim: int, name: str, seq: int) -> dict[str, Any]:
    """Times and rates of both passes, ours and PyTorch's."""
    q, k, v, dout = (torch.randn(BATCH, HEADS, seq, dim, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    mask, targets = MASKS[name], tuple(torch.empty_like(one) for one in (q, k, v))
    pairs = splat.ACSR.from_pattern(mask, seq, seq).nnz * BATCH * HEADS * dim
    out, lse = splat.attention(q, k, v, mask, target="sm80", return_lse=True)

    def gradients() -> torch.Tensor:
        splat.attention_backward(dout, q, k, v, out, lse, mask, target="sm80", out_grads=targets)
        return targets[0]

    calls: dict[str, tuple[int, Callable[[], torch.Tensor]]] = {
        "ours": (4, lambda: splat.attention(q, k, v, mask, target="sm80", out=out)), "ours, gradients": (10, gradients),
    }  # fmt: skip
    if name in DENSE:
        leaves = [one.clone().requires_grad_() for one in (q, k, v)]

        def theirs(given: tuple[torch.Tensor, ...]) -> torch.Tensor:
            with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(*given, is_causal=DENSE[name])

        recorded = theirs(tuple(leaves))
        calls["torch"] = (4, lambda: theirs((q, k, v)))
        calls["torch, gradients"] = (10, lambda: torch.autograd.grad(recorded, leaves, dout, retain_graph=True)[0])
    row: dict[str, Any] = {"head_dim": dim, "mask": name}
    for who, (factor, call) in calls.items():
        row |= _rate(who, call, factor * pairs)
    return row


def _rate(who: str, call: Callable[[], torch.Tensor], operations: int) -> dict[str, Any]:
    try:
        ms = event_ms(lambda _: call(), 1, BUDGET)
    except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
        return {f"{who}_ms": describe(error)}
    return {f"{who}_ms": ms, f"{who}_tflops": operations / ms * 1e-9}


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", type=int, default=8192)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    rows = []
    for dim in DIMS:
        for name in MASKS:
            rows.append(measure(dim, name, args.seq))
            print({key: round(one, 3) if isinstance(one, float) else one for key, one in rows[-1].items()}, flush=True)
    text = json.dumps({"gpu": torch.cuda.get_device_name(), "seq": args.seq, "rows": rows})
    if args.json:
        args.json.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
