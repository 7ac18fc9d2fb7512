"""Inputs of one shape on the GPU, several sets where they would fit in the cache, and the check of a result."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from gpu_cases import Case
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

MOST_SETS = 32
CACHES = 3  # all sets together hold at least so many L2 caches
ROW_CHUNK = 1024  # query rows of the reference at a time: 1024 x 131,072 scores are 512 MiB
ROWS_CHECKED = 8192  # of a longer sequence: the first, the last and some between
TOLERANCE, ROW_TOLERANCE = 1e-2, 5e-2  # relative Frobenius error in bf16: of the whole, and of the worst row


@dataclass(frozen=True, slots=True)
class Shape:
    """Of q, k and v: (batch, heads, seq, dim) in bf16."""

    batch: int
    heads: int
    seq: int
    dim: int

    @property
    def nbytes(self) -> int:
        """Bytes of q, k, v and out together."""
        return 4 * 2 * self.batch * self.heads * self.seq * self.dim

    def floor_ms(self, kept: int, ceilings: dict[str, float]) -> float:
        """The larger of the useful operations at the product's rate and q, k, v, out once at the copy's rate."""
        operations = 4 * kept * self.dim * self.batch * self.heads
        return max(operations / ceilings["tflops"] * 1e-9, self.nbytes / ceilings["gbs"] * 1e-6)

    def __str__(self) -> str:
        return f"batch {self.batch}, heads {self.heads}, n {self.seq}, head_dim {self.dim}, bf16"


@dataclass(frozen=True, slots=True)
class Workload:
    """Sets of (q, k, v), standard normal, (batch, heads, seq, dim)."""

    shape: Shape
    sets: list[tuple[torch.Tensor, ...]] = field(repr=False)

    @classmethod
    def draw(cls, shape: Shape, seed: int) -> Workload:
        """Fresh inputs; so many sets that the cache cannot hold them all."""
        cache = torch.cuda.get_device_properties(0).L2_cache_size
        sets = max(1, min(MOST_SETS, -(-CACHES * cache // shape.nbytes)))
        generator = torch.Generator("cuda").manual_seed(seed)
        size = (shape.batch, shape.heads, shape.seq, shape.dim)

        def one() -> torch.Tensor:
            return torch.randn(size, generator=generator, device="cuda", dtype=torch.bfloat16)

        return cls(shape, [(one(), one(), one()) for _ in range(sets)])

    def bshd(self) -> list[tuple[torch.Tensor, ...]]:
        """The same sets, (batch, seq, heads, dim), contiguous."""
        return [tuple(x.transpose(1, 2).contiguous() for x in one) for one in self.sets]


def check(case: Case, workload: Workload, result: torch.Tensor) -> dict[str, Any]:
    """error, worst_row: of the first set's result beside float32 SDPA, two heads. ``correct`` is False for NaN."""
    seq = workload.shape.seq
    heads = sorted({(0, 0), (workload.shape.batch - 1, workload.shape.heads - 1)})
    q, k, v = (torch.stack([x[head] for head in heads]).float()[None] for x in workload.sets[0])
    out = torch.stack([result[head] for head in heads]).float()[None]
    difference, size, worst = 0.0, 0.0, 0.0
    for first in _chunks(seq):
        rows = slice(first, min(first + ROW_CHUNK, seq))
        mask = case.rows(rows.start, rows.stop, seq, q.device.type)
        with sdpa_kernel(SDPBackend.MATH):  # the others may round the products to tf32
            wanted = scaled_dot_product_attention(q[:, :, rows], k, v, attn_mask=mask)
        by_row = (out[:, :, rows] - wanted).square().sum(-1)
        norms = wanted.square().sum(-1)
        difference += by_row.sum().item()
        size += norms.sum().item()
        ratio = (by_row / norms).max().item()
        worst = ratio if ratio != ratio else max(worst, ratio)  # noqa: PLR0124 - max() would lose a NaN
        if worst != worst:  # noqa: PLR0124 - NaN
            break
    error, worst = (difference / size) ** 0.5, worst**0.5
    return {"error": error, "worst_row": worst, "correct": error <= TOLERANCE and worst <= ROW_TOLERANCE}


def _chunks(seq: int) -> list[int]:
    """Where the checked rows begin."""
    every = list(range(0, seq, ROW_CHUNK))
    if seq <= ROWS_CHECKED:
        return every
    chunks = ROWS_CHECKED // ROW_CHUNK
    return [every[index * (len(every) - 1) // (chunks - 1)] for index in range(chunks)]
