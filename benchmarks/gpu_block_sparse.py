"""Block-sparse products in Triton, written for gpu_operators.py: SDD, softmax and DSD over the blocks of a mask.

A list of blocks per row of blocks, values as (heads, blocks, size, size), shared by all heads; blocks that the mask
keeps in part have their elements' bits, read by the softmax alone. float32 products take three TF32 ones each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl

CONFIGS = [triton.Config({}, num_warps=warps, num_stages=stages) for warps, stages in ((4, 3), (8, 3), (4, 2))]
ROW_CONFIGS = [triton.Config({}, num_warps=warps) for warps in (2, 4, 8)]


@dataclass(frozen=True, slots=True)
class Blocks:
    """rows, columns: (blocks,) int32, row after row; first: (rows of blocks + 1,); partial: (blocks,) int32, which of
    ``bits`` (partial blocks, size, size) uint8 a block has, -1 if it is whole. place: (nnz,) int64, of each pair in
    (blocks, size, size); widest: blocks of a row at most.
    """

    size: int
    rows: torch.Tensor
    columns: torch.Tensor
    first: torch.Tensor
    partial: torch.Tensor
    bits: torch.Tensor
    place: torch.Tensor
    widest: int

    @classmethod
    def of(cls, rows: torch.Tensor, columns: torch.Tensor, n: int, size: int) -> Blocks:
        """Of the pairs of a mask with n rows and columns, a multiple of size."""
        across, area = n // size, size * size
        key = (rows // size) * across + columns // size
        blocks, of_pair, pairs = key.unique(return_inverse=True, return_counts=True)
        place = of_pair * area + (rows % size) * size + columns % size
        in_part = pairs < area
        partial = torch.where(in_part, in_part.cumsum(0) - 1, -1)
        kept = torch.zeros(len(blocks) * area, dtype=torch.uint8, device=rows.device)
        kept[place] = 1
        first = torch.searchsorted(blocks, torch.arange(across + 1, device=rows.device) * across)
        return cls(
            size, (blocks // across).int(), (blocks % across).int(), first.int(), partial.int(),
            kept.view(-1, size, size)[in_part].contiguous(), place, int(first.diff().max()),
        )  # fmt: skip

    def spread(self, values: torch.Tensor, fill: float) -> torch.Tensor:
        """Packed values, (heads, nnz), as blocks."""
        area = self.size * self.size
        found = torch.full((len(values), len(self.rows) * area), fill, dtype=values.dtype, device=values.device)
        for head, one in enumerate(values):
            found[head][self.place] = one
        return found.view(len(values), -1, self.size, self.size)

    def packed(self, blocks: torch.Tensor, heads: list[int]) -> torch.Tensor:
        """Of some heads, the values of pairs."""
        return torch.stack([blocks[head].reshape(-1)[self.place] for head in heads])

    @property
    def nbytes(self) -> int:
        """Of what the kernels read of the mask."""
        return sum(x.nbytes for x in (self.rows, self.columns, self.first, self.partial, self.bits))

    def sdd(self, q: torch.Tensor, k: torch.Tensor, scale: float) -> torch.Tensor:
        """scale * q k^T in whole blocks."""
        heads, n, dim = q.shape
        out = torch.empty(heads, len(self.rows), self.size, self.size, dtype=q.dtype, device=q.device)
        grid = (len(self.rows), heads)
        _sdd[grid](q, k, out, self.rows, self.columns, scale, n, len(self.rows), BLOCK=self.size, DIM=dim)
        return out

    def softmax(self, scores: torch.Tensor) -> torch.Tensor:
        """Of every row over its kept pairs; 0 elsewhere."""
        out = torch.empty_like(scores)
        width = triton.next_power_of_2(self.widest * self.size)
        grid = ((len(self.first) - 1) * self.size, len(scores))
        _softmax[grid](scores, out, self.first, self.partial, self.bits, len(self.rows), BLOCK=self.size, WIDTH=width)
        return out

    def dsd(self, weights: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """Blocks times v."""
        heads, n, dim = v.shape
        out = torch.empty_like(v)
        grid = (len(self.first) - 1, heads)
        _dsd[grid](weights, v, out, self.first, self.columns, n, len(self.rows), BLOCK=self.size, DIM=dim)
        return out


@triton.autotune(configs=CONFIGS, key=["BLOCK", "DIM"])
@triton.jit
def _sdd(q, k, out, rows, columns, scale, n, blocks, BLOCK: tl.constexpr, DIM: tl.constexpr):  # noqa: ANN001, ANN202, N803
    block, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    row, column = tl.load(rows + block), tl.load(columns + block)
    i, d = tl.arange(0, BLOCK), tl.arange(0, DIM)
    left = tl.load(q + head * n * DIM + (row * BLOCK + i)[:, None] * DIM + d[None, :])
    right = tl.load(k + head * n * DIM + (column * BLOCK + i)[:, None] * DIM + d[None, :])
    product = tl.dot(left, tl.trans(right), input_precision="tf32x3") * scale
    to = out + (head * blocks + block) * BLOCK * BLOCK
    tl.store(to + i[:, None] * BLOCK + i[None, :], product.to(out.dtype.element_ty))


@triton.autotune(configs=ROW_CONFIGS, key=["BLOCK", "WIDTH"])
@triton.jit
def _softmax(scores, out, first, partial, bits, blocks, BLOCK: tl.constexpr, WIDTH: tl.constexpr):  # noqa: ANN001, ANN202, N803
    row, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    begin, end = tl.load(first + row // BLOCK), tl.load(first + row // BLOCK + 1)
    at = tl.arange(0, WIDTH)
    block, inside = begin + at // BLOCK, (row % BLOCK) * BLOCK + at % BLOCK
    there = block < end
    which = tl.load(partial + block, mask=there, other=-1)
    bit = tl.load(bits + which.to(tl.int64) * BLOCK * BLOCK + inside, mask=which >= 0, other=1)
    place = (head * blocks + block) * BLOCK * BLOCK + inside
    x = tl.load(scores + place, mask=there, other=-float("inf")).to(tl.float32)
    x = tl.where(bit != 0, x, -float("inf"))
    peak = tl.max(x, 0)
    weight = tl.exp(x - tl.where(peak == -float("inf"), 0.0, peak))
    total = tl.sum(weight, 0)
    weight = weight / tl.where(total == 0.0, 1.0, total)
    tl.store(out + place, weight.to(out.dtype.element_ty), mask=there)


@triton.autotune(configs=CONFIGS, key=["BLOCK", "DIM"])
@triton.jit
def _dsd(weights, v, out, first, columns, n, blocks, BLOCK: tl.constexpr, DIM: tl.constexpr):  # noqa: ANN001, ANN202, N803
    row, head = tl.program_id(0), tl.program_id(1).to(tl.int64)
    begin, end = tl.load(first + row), tl.load(first + row + 1)
    i, d = tl.arange(0, BLOCK), tl.arange(0, DIM)
    total = tl.zeros((BLOCK, DIM), dtype=tl.float32)
    for block in range(begin, end):
        column = tl.load(columns + block)
        left = tl.load(weights + (head * blocks + block) * BLOCK * BLOCK + i[:, None] * BLOCK + i[None, :])
        right = tl.load(v + head * n * DIM + (column * BLOCK + i)[:, None] * DIM + d[None, :])
        total = tl.dot(left, right, total, input_precision="tf32x3")
    tl.store(out + head * n * DIM + (row * BLOCK + i)[:, None] * DIM + d[None, :], total.to(out.dtype.element_ty))
