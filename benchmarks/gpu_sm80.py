"""Attention by a warp's matrix products (sm80) beside PyTorch's FlashAttention-2, forward and gradients.

    python benchmarks/gpu_sm80.py [--seq 8192] [--json sm80.json]

bfloat16, one process, medians of CUDA events with the L2 cache overwritten before each call; TFLOP/s count the products
of kept pairs, 4 dims a pair forward and 10 dims of the gradients, though two kernels of ours make 14. PyTorch's kernel
takes no mask but causal; its gradients come without those of the forward pass. The last line is JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
from gpu_rows import options, rated, say
from gpu_timing import Budget
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
        row |= rated(who, call, factor * pairs, BUDGET)
    return row


def main() -> None:
    """Measure, print, write."""
    args = options(__doc__, seq=8192).parse_args()
    say((measure(dim, name, args.seq) for dim, name in product(DIMS, MASKS)), args)


if __name__ == "__main__":
    main()
