"""Compile, run and time one case."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

from splat_numba.cli.cases import Case
from splat_numba.cli.options import CommandError
from splat_numba.testing.problem import Operands, Problem

if TYPE_CHECKING:
    from splat_numba.kernel import Kernel

LEAST_RUNS, MOST_RUNS = 3, 15
TIME_FOR_RUNS = 1.0  # seconds spent on one median, beyond the least number of runs


@dataclass(frozen=True, slots=True)
class Shapes:
    """Of every case of one command: batch 1, seq queries and keys; where to run."""

    seq: int
    head_dim: int
    heads: int
    dtype: str
    backend: str = "auto"
    target: str | None = None

    def operands(self, case: Case) -> Operands:
        """Standard normal q, k, v of shape (1, heads, seq, head_dim), always the same. Raises CommandError."""
        problem = Problem(self.seq, self.seq, case.pattern, self.dtype, 1, self.heads, head_dim=self.head_dim)
        try:
            return problem.arrays()
        except ModuleNotFoundError as error:
            raise CommandError(f"dtype {self.dtype} needs {error.name}. Run: pip install {error.name}") from None

    def __str__(self) -> str:
        return f"seq {self.seq}, head_dim {self.head_dim}, heads {self.heads}, {self.dtype}"


@dataclass(frozen=True, slots=True)
class Built:
    """A kernel, and the seconds that it took to plan and compile, or load."""

    kernel: Kernel
    seconds: float

    @property
    def cached(self) -> bool:
        """Whether all of its machine code came from the disk cache."""
        return all(self.kernel.resources.get("cached", [False]))


def build(case: Case, shapes: Shapes) -> Built:
    """Generate and compile the case's kernel. Raises SplatError."""
    from splat_numba import api

    begin = time.perf_counter()
    kernel = api.compile(
        case.pattern,
        seq_q=shapes.seq,
        seq_kv=shapes.seq,
        head_dim=shapes.head_dim,
        heads_q=shapes.heads,
        dtype=shapes.dtype,
        backend=shapes.backend,
        target=shapes.target,
    )
    return Built(kernel, time.perf_counter() - begin)


def median_seconds(call: Callable[[], Any]) -> float:
    """The median time of a call over a few runs, after one that does not count."""
    call()
    times: list[float] = []
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and sum(times) < TIME_FOR_RUNS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return median(times)
