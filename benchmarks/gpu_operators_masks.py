"""The masks of gpu_operators.py, after SPLAT's evaluation, and arrays over one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import sqrt

import numpy as np
import torch

import splat_numba as splat

HEADS, DIM, SCALE = 12, 64, 0.125


def window(n: int, kept: float) -> splat.Pattern:
    """Queries keep keys at most so far away that about ``kept`` of all pairs are."""
    return splat.window(round(n * (1 - sqrt(1 - kept))))


def blocked(n: int, kept: float) -> splat.Pattern:
    """Chunk i sees chunks i - 1 and i."""
    return splat.blocked(max(round(n * kept / 2), 1), before=1)


def strided(_: int, kept: float) -> splat.Pattern:
    """Every so many keys, in both directions."""
    return splat.strided(max(round(1 / kept), 1))


def causal(n: int, kept: float) -> splat.Pattern:
    """The last keys before each query; of half of all pairs, all of them."""
    return splat.causal() if kept >= 0.5 else splat.window(round(n * (1 - sqrt(1 - 2 * kept))), 0)


PATTERNS: dict[str, Callable[[int, float], splat.Pattern]] = {
    "windowed": window, "blocked": blocked, "strided": strided, "causal": causal,
}  # fmt: skip
"""(tokens, share of pairs wanted) -> mask; ``graph`` of acsr_of() is not a pattern."""
MASKS = (*PATTERNS, "graph")


@dataclass(frozen=True, slots=True)
class Case:
    """batch: entries of 12 heads; kept: the share of pairs that is wanted."""

    mask: str
    seq: int
    dtype: str
    kept: float
    batch: int

    def __str__(self) -> str:
        return f"{self.mask} {self.seq} {self.dtype} {self.kept:.0%}"


SHORT = (
    *(Case(mask, 1024, "float16", kept, 32) for kept in (0.5, 0.1, 0.25) for mask in PATTERNS),
    *(Case(mask, 4096, "float16", 0.1, 4) for mask in PATTERNS),
    *(Case(mask, 2048, "float16", 0.25, 8) for mask in PATTERNS),
    *(Case(mask, 4096, "float16", kept, 4) for kept in (0.25, 0.5) for mask in ("windowed", "blocked")),
    *(Case("graph", 4096, dtype, 0.0, 4) for dtype in ("float16", "float32")),
    *(Case(mask, 1024, "float32", 0.25, 16) for mask in PATTERNS),
    *(Case(mask, 1024, "float32", kept, 16) for kept in (0.5, 0.1) for mask in ("windowed", "causal")),
)
"""Of the whole grid what tells most in three minutes, in that order; long ones with a smaller batch."""


def acsr_of(name: str, n: int, kept: float) -> splat.ACSR:
    """A mask by its name, of n tokens; a graph has 16 neighbours a node whatever is wanted."""
    return random_graph(n) if name == "graph" else splat.ACSR.from_pattern(PATTERNS[name](n, kept), n, n)


def random_graph(n: int) -> splat.ACSR:
    """Every node keeps 16 others, or fewer where two are the same."""
    rng = np.random.default_rng(0)
    pairs = np.unique(np.repeat(np.arange(n), 16) * n + rng.integers(0, n, 16 * n))
    return splat.from_csr(np.searchsorted(pairs, np.arange(n + 1) * n), pairs % n, (n, n))


@dataclass(frozen=True, slots=True)
class Setting:
    """One mask with arrays (heads of all batch entries, n, dim) and packed values (the same, nnz) in CSR's order, which
    is the packed one of these masks. rows, columns: of every pair, int64. ours: the same memory as (batch, heads, ...).
    """

    acsr: splat.ACSR
    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    values: torch.Tensor
    rows: torch.Tensor
    columns: torch.Tensor
    indptr: torch.Tensor
    ours: dict[str, torch.Tensor] = field(repr=False)

    @classmethod
    def of(cls, acsr: splat.ACSR, batch: int, dtype: str) -> Setting:
        """Random numbers; values are weights, positive, so that sums of products do not cancel."""
        torch.manual_seed(0)
        kind, n = getattr(torch, dtype), acsr.shape[0]
        ours = {x: torch.randn(batch, HEADS, n, DIM, device="cuda", dtype=kind) for x in "qkv"}
        ours["values"] = torch.rand(batch, HEADS, acsr.nnz, device="cuda", dtype=kind)
        indptr, indices = acsr.to_csr()
        counts = torch.from_numpy(np.diff(indptr)).cuda()
        rows = torch.repeat_interleave(torch.arange(n, device="cuda"), counts)
        flat = {name: one.flatten(0, 1) for name, one in ours.items()}
        where = torch.from_numpy(indices).cuda().long()
        return cls(acsr, *flat.values(), rows, where, torch.from_numpy(indptr).cuda().int(), ours)

    @property
    def heads(self) -> int:
        """Of all batch entries."""
        return self.q.shape[0]

    @property
    def checked(self) -> list[int]:
        """The heads whose results are compared: the first, the last, one between."""
        return sorted({0, self.heads // 2, self.heads - 1})

    def mask(self) -> torch.Tensor:
        """(n, n) bool."""
        kept = torch.zeros(self.acsr.shape, dtype=torch.bool, device="cuda")
        kept[self.rows, self.columns] = True
        return kept

    def dense(self, fill: float) -> torch.Tensor:
        """The packed values in dense arrays, ``fill`` elsewhere; a few heads at a time."""
        n, m = self.acsr.shape
        found = torch.full((self.heads, n, m), fill, device="cuda", dtype=self.q.dtype)
        flat = self.rows * m + self.columns
        for head in range(self.heads):
            found[head].view(-1)[flat] = self.values[head]
        return found
