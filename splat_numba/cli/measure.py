"""Compile, run and time one case."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any

from splat_numba.arguments.typed import Backend, DtypeName, Target
from splat_numba.cli.cases import Case
from splat_numba.cli.memory import check_memory
from splat_numba.cli.options import CommandError, Place, Sizes
from splat_numba.executors.choice import choose_executor
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.testing.problem import Operands, Problem

if TYPE_CHECKING:
    from splat_numba.kernel import Kernel

LEAST_RUNS, MOST_RUNS = 3, 15
TIME_FOR_RUNS = 1.0  # seconds spent on one median, beyond the least number of runs
MASK_BYTES = 50  # a row of a mask, at least: its runs
# full() of a head of 128 tokens took 0.19 s on the emulator; a command makes about five such calls a pattern.
EMULATED_PAIRS = 90_000  # a second
LONGEST_EMULATED = 60.0  # seconds of one call


@dataclass(frozen=True, slots=True)
class Shapes:
    """Of every case of one command: batch 1, seq queries and keys; where to run."""

    seq: int
    head_dim: int
    heads: int
    dtype: DtypeName
    backend: Backend = "auto"
    target: Target | None = None

    @classmethod
    def of(cls, sizes: Sizes, place: Place) -> Shapes:
        """Those that options ask for. Raises CommandError for options that do not go together."""
        dtype = place.chosen_dtype()
        return cls(sizes.seq, sizes.head_dim, sizes.heads, dtype, place.backend, place.target)

    def check(self, cases: int) -> None:
        """Refuse sizes that cannot be run, before anything is made of them. Raises CommandError."""
        sizes = f"--seq {self.seq} with --heads {self.heads} and --head-dim {self.head_dim}"
        numbers = self.heads * self.seq * self.head_dim
        arrays = numbers * (4 * ITEMSIZE[self.dtype] + 8)  # q, k, v, out, and one as it is drawn, in float64
        check_memory(arrays + cases * MASK_BYTES * self.seq, sizes, "--seq or --heads")
        seconds = self.heads * self.seq**2 / EMULATED_PAIRS
        if seconds > LONGEST_EMULATED and choose_executor(self.backend, self.target).emulated:
            raise CommandError(
                f"{sizes} takes the emulator {seconds / 60:.0f} minutes a call. Give --seq 256 --heads 1."
            )

    def operands(self, case: Case) -> Operands:
        """Standard normal q, k, v of shape (1, heads, seq, head_dim), always the same. Raises CommandError."""
        problem = Problem(self.seq, self.seq, case.pattern, self.dtype, 1, self.heads, head_dim=self.head_dim)
        try:
            return problem.arrays()
        except ModuleNotFoundError as error:
            raise CommandError(f"--dtype {self.dtype} needs {error.name}. Run: pip install {error.name}") from None

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


@dataclass(frozen=True, slots=True)
class Timed:
    """A call that was timed. seconds: the median; spread: the time that the middle half of the runs spans / median."""

    seconds: float
    spread: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Timed:
        """Of two runs or more, in seconds."""
        first, middle, third = quantiles(times, n=4, method="inclusive")
        return cls(middle, (third - first) / middle)


def timed(call: Callable[[], Any]) -> Timed:
    """A call, timed over a few runs, after one that does not count."""
    call()
    times: list[float] = []
    while len(times) < LEAST_RUNS or (len(times) < MOST_RUNS and sum(times) < TIME_FOR_RUNS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return Timed.of(times)
