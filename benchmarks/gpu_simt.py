"""Attention of float32 and float64 on a GPU's FMA units beside PyTorch's, forward and with gradients.

    python benchmarks/gpu_simt.py [--seq 4096] [--json simt.json]

One run, medians of CUDA events with the L2 cache overwritten before each call; TFLOP/s count the products of kept
pairs, 4 dims a pair forward and 10 dims of the gradients. PyTorch has the mask as a bool array, TF32 off. The last line
is JSON.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from gpu_rows import options, rated, say
from gpu_timing import Budget

import splat_numba as splat

BATCH, HEADS = 2, 16
MASKS = {"full": splat.full(), "causal": splat.causal(), "window": splat.window(256), "dilated": splat.dilated(64, 8)}
BUDGET = Budget()


def rows(seq: int) -> Iterator[dict[str, Any]]:
    """A row for each dtype, head_dim and mask."""
    for dtype in (torch.float32, torch.float64):
        for dim in (64, 128):
            given = [torch.randn(BATCH, HEADS, seq, dim, device="cuda", dtype=dtype) for _ in range(4)]
            for name, mask in MASKS.items():
                yield {"dtype": str(dtype).removeprefix("torch."), "head_dim": dim, "mask": name,
                       **_measure(given, mask, seq)}  # fmt: skip


def _measure(given: list[torch.Tensor], mask: splat.Pattern, seq: int) -> dict[str, Any]:
    q, k, v, dout = given
    stored = splat.ACSR.from_pattern(mask, seq, seq)
    pairs = stored.nnz * BATCH * HEADS * q.shape[-1]
    kept = None if stored.nnz == seq * seq else torch.from_numpy(stored.to_dense()).cuda()
    out, lse = splat.attention(q, k, v, mask, target="simt", return_lse=True)
    targets = tuple(torch.empty_like(one) for one in (q, k, v))

    def ours() -> torch.Tensor:
        return splat.attention(q, k, v, mask, target="simt", out=out)

    def gradients() -> torch.Tensor:
        splat.attention_backward(dout, q, k, v, out, lse, mask, target="simt", out_grads=targets)
        return targets[0]

    def theirs() -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=kept)

    found: dict[str, Any] = {}
    for name, call, factor in (("ours", ours, 4), ("ours, gradients", gradients, 10), ("torch", theirs, 4)):
        found |= rated(name, call, factor * pairs, BUDGET)
    return found


def main() -> None:
    """Measure, print, write."""
    args = options(__doc__, seq=4096).parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    say(rows(args.seq), args)


if __name__ == "__main__":
    main()
