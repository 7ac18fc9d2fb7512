"""Cases for `splat-numba selftest`: drawn, run against the oracle for so long, and counted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.util import find_spec
from itertools import count
from typing import Any

import numpy as np

from splat_numba.arguments.backends import RUNS
from splat_numba.cli.console import Tracker
from splat_numba.cli.texts import sources
from splat_numba.executors.executor import Executor
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plans.machine import CPU, GPU
from splat_numba.gen.shown.kinds import kinds
from splat_numba.testing.check import check_attention
from splat_numba.testing.problem import Problem

# Stored masks take (dtype, head_dim, value_dim) from here, because each combination compiles kernels of its own: sizes
# that fill vectors, that leave a rest, and value_dim apart from head_dim.
BFLOAT16 = "bfloat16" if find_spec("ml_dtypes") else "float16"  # NumPy has it from that package
GPU_FAMILIES = (("float16", 64, 64), (BFLOAT16, 128, 40), ("float16", 33, 5), (BFLOAT16, 24, 24), ("float32", 33, 20),
                ("float64", 16, 24))  # fmt: skip
FAMILIES = {
    CPU: (("float32", 16, 16), ("float32", 33, 5), ("float16", 24, 24), ("float64", 8, 17)),
    GPU: GPU_FAMILIES,
}
PATTERN_DTYPES = {CPU: ("float32", "float64", "float16"), GPU: ("float16", BFLOAT16)}
STORED_CASES, PATTERN_CASES, VARIANTS = 40, 1, 12  # of one round, and further lengths of one pattern
LONGEST_VARIANT = 200  # tokens
LONGEST_EMULATED = 129  # tokens of any case; of a machine's one in eight is longer
# A case that needs a new kernel is passed over once compiling took this share of the time and these seconds.
COMPILING_SHARE, COMPILING_AT_ONCE = 0.5, 5.0
REPEATED = "\nin Problem("  # check_attention ends its message with the problem, which is printed once, by itself
SHRINK_SECONDS = 20.0  # for making a failing case smaller, beyond the time given


class TimeUp(BaseException):
    """The time is over. No Exception, so that Hypothesis does not take it for a failing case."""


@dataclass
class Tally:
    """What has been seen: cases, the worst error / allowed, kernels, the seconds that compiling took (with the cases
    that needed it), the kinds of pass, and the smallest failure. until: when to stop.
    """

    until: float
    cases: int = 0
    worst: float = 0.0
    kernels: dict[str, bool] = field(default_factory=dict)  # name of the source -> loaded from the disk cache
    compiling: float = 0.0
    kinds: set[str] = field(default_factory=set)
    failing: Problem | None = None
    failure: str = ""

    def record(self, used: float) -> None:
        """One case passed, with an error of this share of what was allowed."""
        self.cases += 1
        self.worst = max(self.worst, used)

    def fail(self, problem: Problem, error: BaseException) -> None:
        """One case failed: keep it if it is the smallest so far, and leave some time to find smaller ones."""
        if self.failing is None:
            self.until = max(self.until, time.monotonic() + SHRINK_SECONDS)
        if self.failing is None or _size(problem) <= _size(self.failing):
            self.failing, self.failure = problem, f"{type(error).__name__}: {str(error).partition(REPEATED)[0]}"


def _size(problem: Problem) -> tuple[int, int]:
    elements = (problem.batch or 1) * (problem.heads_q or 1) * (problem.seq_q + 1) * (problem.seq_kv + 1)
    return elements * problem.head_dim, len(repr(problem))


def executor_of(backend: str) -> Executor:
    """Who runs the calls of a backend."""
    from splat_numba.executors.choice import choose_executor

    return choose_executor(backend, None)


def fuzz(backend: str, tally: Tally, seed: int, track: Tracker) -> None:
    """Rounds of stored masks, every fourth of one pattern in closed form, until the time is up or a case fails."""
    begin = time.monotonic()

    def check(problem: Problem) -> None:
        now = time.monotonic()
        if now >= tally.until:
            raise TimeUp
        track(f"{backend}: {tally.cases} cases, {len(tally.kernels)} kernels", int(now - begin))
        try:
            fresh = not kernel_names(problem, backend) <= tally.kernels.keys()
            if fresh and tally.compiling > COMPILING_SHARE * (now - begin) + COMPILING_AT_ONCE:
                return
            tally.record(check_attention(problem, backend).used)
            _note_kernels(problem, backend, tally)
            tally.compiling += time.monotonic() - now if fresh else 0.0
            _check_variants(problem, backend, tally)
        except Exception as error:
            tally.fail(problem, error)
            raise

    try:
        for number in count():
            _round(check, number, seed, backend)
    except TimeUp:
        pass
    except Exception:
        if tally.failing is None:  # not one of the cases failed, but their making
            raise


def _round(check: Callable[[Problem], None], number: int, seed: int, backend: str) -> None:
    """Draw and check one round's problems. Hypothesis makes a failing one smaller, and raises what it raised."""
    hypothesis: Any = import_module("hypothesis")  # not imported by name: only the strategies of the test kit do that
    settings = hypothesis.settings(
        max_examples=PATTERN_CASES if number % 4 == 3 else STORED_CASES,
        database=None,
        deadline=None,
        derandomize=False,
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=hypothesis.Verbosity.quiet,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    kind = RUNS[backend]
    family = FAMILIES[kind][(number % 4 + (number // 4) % 2) % 4]
    longest = LONGEST_EMULATED if executor_of(backend).emulated else None
    drawn = _patterns(PATTERN_DTYPES[kind], longest) if number % 4 == 3 else _stored(*family, longest)
    hypothesis.seed(1_000_003 * seed + number)(settings(hypothesis.given(drawn)(check)))()


def _stored(dtype: str, head_dim: int, value_dim: int, longest: int | None) -> Any:
    """Problems with ACSRs and bool arrays only."""
    from splat_numba.testing import masks, problems

    def stored(seq_q: int, seq_kv: int) -> Any:
        return masks(seq_q, seq_kv).filter(lambda mask: not isinstance(mask, Pattern))

    drawn = problems(dtypes=(dtype,), mask=stored, max_length=longest)
    return drawn.map(lambda problem: replace(problem, head_dim=head_dim, value_dim=value_dim))


def _patterns(dtypes: Sequence[str], longest: int | None) -> Any:
    """Problems with one pattern for all heads."""
    from splat_numba.testing import patterns, problems

    drawn = problems(dtypes=dtypes, mask=patterns, max_length=longest)
    return drawn.filter(lambda problem: isinstance(problem.mask, Pattern))


def _check_variants(problem: Problem, backend: str, tally: Tally) -> None:
    """The same kernel at other lengths, where it serves every length: cases that need no compilation."""
    if not isinstance(problem.mask, Pattern):
        return
    from splat_numba import api

    kernel = _kernel(api.compile, problem, problem.mask, backend)
    rng = np.random.default_rng(problem.seed)
    for _ in range(VARIANTS if kernel.plan.closed else 0):
        if time.monotonic() >= tally.until:
            raise TimeUp
        seq_q, seq_kv = (int(n) for n in rng.integers(0, LONGEST_VARIANT, 2))
        variant = replace(problem, seq_q=seq_q, seq_kv=seq_kv, kv_lengths=None, seed=int(rng.integers(2**16)))
        tally.record(check_attention(variant, attention=_as_attention(kernel)).used)


def _as_attention(kernel: Any) -> Callable[..., Any]:
    def call(q: Any, k: Any, v: Any, _: Any, /, **options: Any) -> Any:
        return kernel(q, k, v, kv_lengths=options["kv_lengths"], return_lse=options["return_lse"])

    return call


def _kernel(make: Callable[..., Any], problem: Problem, mask: Any, backend: str) -> Any:
    """api.plan or api.compile for a problem's shapes."""
    extra = {"scale": problem.scale} if make.__name__ == "compile" else {}
    return make(
        mask,
        seq_q=problem.seq_q,
        seq_kv=problem.seq_kv,
        head_dim=problem.head_dim,
        value_dim=problem.value_dim,
        heads_q=problem.heads_q or 1,
        heads_kv=problem.heads_kv or problem.heads_q or 1,
        batch=1 if problem.batch is None else problem.batch,
        dtype=problem.dtype,
        layout=problem.layout,
        backend=backend,
        **extra,
    )


def kernel_names(problem: Problem, backend: str) -> set[str]:
    """The names of the sources that a problem runs, from plans alone: nothing is compiled."""
    from splat_numba import api

    masks: Any = problem.mask if isinstance(problem.mask, (list, tuple)) else [problem.mask]
    plans = (_kernel(api.plan, problem, mask, backend) for mask in masks)
    return {source.name for plan in plans for source in sources(plan, backend, None)[:1]}


def _note_kernels(problem: Problem, backend: str, tally: Tally) -> None:
    """Count the kernels that a problem used, which are in memory by now, and what kinds of pass they run."""
    from splat_numba import api

    for part in _kernel(api.compile, problem, problem.mask, backend).parts:
        tally.kinds |= kinds(part.plan)
        tally.kernels.setdefault(part.compiled.source.name, part.compiled.cached)
