"""warm_up: compile ahead of time, in several processes, so that no call waits."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, get_args

from splat_numba import api
from splat_numba.arguments.masks import Mask, Stored, store_mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.sizes import check_size
from splat_numba.arguments.typed import Ahead, Backend, Dtype, Target
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.executor import Executor
from splat_numba.executors.given import Given
from splat_numba.executors.packed_ahead import BACKWARD, FORWARD, UNFUSED, jobs_of
from splat_numba.gen.packed.problem import Operator
from splat_numba.gen.plans.problem import Problem
from splat_numba.plain import kind, shown
from splat_numba.runtime import cache, notice
from splat_numba.runtime.device import cores
from splat_numba.runtime.notice import Told
from splat_numba.settings import Settings, current
from splat_numba.signatures import strict

WORKER = "from splat_numba.warm import serve; serve()"
MOST_PROCESSES = 256


class _Work(Protocol):
    """What a process is given to compile."""

    def compile(self, settings: Settings) -> object:
        """Compile it, or read it from disk."""


@dataclass(frozen=True, slots=True)
class _Call:
    """One call of compile()."""

    mask: Stored
    options: dict[str, Any]

    def compile(self, settings: Settings) -> object:
        """Its kernel."""
        return api.compile(self.mask, **self.options)


@dataclass(frozen=True, slots=True)
class _Job:
    """names: of the texts that the work compiles."""

    work: _Work
    names: frozenset[str]


@strict()
def warm_up(
    masks: Sequence[Mask],
    *,
    seq_q: int,
    seq_kv: int,
    head_dim: int | Sequence[int],
    dtype: Dtype | Sequence[Dtype],
    operators: Ahead | Sequence[Ahead] = "attention",
    backward: bool = False,
    backend: Backend = "auto",
    target: Target | None = None,
    processes: int | None = None,
) -> tuple[Told, ...]:
    """Compile the kernels of every mask with every head_dim and dtype, and with ``backward`` those of their gradients.

    Masks that share a text are compiled once. For a GPU it needs none, as compile(). Where attention() is made of the
    packed operators (``plan(...).fused`` is False), these are compiled too.

    Parameters
    ----------
    masks : list of masks
        Each as in compile().
    seq_q, seq_kv : int
        Queries and keys, in tokens.
    head_dim : int, or a list of them
        Numbers of a query, a key and a value.
    dtype : NumPy dtype or its name, or a list of them
        "bfloat16" included.
    operators : "attention", "sddmm", "softmax" or "spmm", or a list of them
        What will be called with the masks; of the packed ones with rows of head_dim numbers that lie side by side.
    backward : bool
        Compile gradients too: what attention_vjp, sddmm_vjp, softmax_vjp and spmm_vjp call.
    backend, target
        As in compile(); packed operators have no target, and no emulated kernels.
    processes : int
        How many compile at once, as many as there are cores unless given; what they make is left in the disk cache,
        where the first call finds it.

    Returns
    -------
    tuple of records
        Of each kernel that was compiled or read: ``kernel``, its name, ``seconds``, and ``cached``, if it was on disk
        already; kernels that this process holds have none.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, PlanError, CompileError
        As compile() does.
    BackendError
        As compile() does, and where several processes have no disk cache to leave kernels in.
    """
    if not isinstance(masks, (list, tuple)) or not masks:
        raise ArgumentTypeError(f"masks wanted as a list of masks, got {kind(masks)}. Give [mask] for one.")
    named = _named(operators, backend)
    options = {"seq_q": seq_q, "seq_kv": seq_kv, "backend": backend, "target": target,
               "backward": check_flag("backward", backward)}  # fmt: skip
    most = cores() if processes is None else check_size("processes", processes, 1, MOST_PROCESSES)
    jobs = _distinct(_jobs(masks, _several("head_dim", head_dim), _several("dtype", dtype), options, named))
    if min(len(jobs), most) == 1:
        return _compile(jobs)
    return _in_processes(jobs, min(len(jobs), most))


def _several(name: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, (list, tuple)):
        return (given,)
    if not given:
        raise ArgumentError(f"{name} wanted as one or a list of some, got none. Give one.")
    return tuple(given)


def _named(operators: Any, backend: str) -> tuple[str, ...]:
    found, known = _several("operators", operators), get_args(Ahead)
    for one in found:
        if one not in known:
            raise ArgumentError(f"operators wanted among {', '.join(known)}, got {shown(one)}. Name some of them.")
        if one != "attention" and backend == "emulate":
            raise BackendError(
                f"operators wanted as attention with backend 'emulate', whose packed operators are not compiled, got "
                f"{shown(one)}. Leave it out."
            )
    return found


def _jobs(
    masks: Sequence[Mask], dims: Sequence[int], dtypes: Sequence[Dtype], options: dict[str, Any],
    operators: Sequence[str] = ("attention",),
) -> Iterator[_Job]:  # fmt: skip
    """The jobs of each mask, dim and dtype, planned here: what cannot be compiled is refused before anything is."""
    executor, settings = choose_executor(options["backend"], options["target"]), current()
    packed = [one for one in operators if one != "attention"]
    found = [FORWARD[one] for one in packed] + [BACKWARD[one] for one in packed if options["backward"]]
    asked = tuple(chain.from_iterable(found))
    for dim in dims:
        for dtype in dtypes:
            given = {**options, "head_dim": dim, "dtype": dtype}
            problem = api.make_problem(options["seq_q"], options["seq_kv"], dim, None, 1, None, 1, dtype)
            for mask in masks:
                stored = store_mask(mask, problem.seq_q, problem.seq_kv)
                if "attention" in operators:
                    yield from _attention_jobs(stored, {**given, "dtype": problem.dtype}, problem, executor, settings)
                yield from _packed_jobs(stored, problem, asked, executor.name, problem.dtype, settings)


def _attention_jobs(
    stored: Stored, given: dict[str, Any], problem: Problem, executor: Executor, settings: Settings
) -> Iterator[_Job]:  # fmt: skip
    found = executor.plan(stored, problem, 1.0, settings)
    names = {source.name for source in executor.sources(found)}
    if given["backward"]:
        # Of one forward text there may be several of gradients.
        sources = executor.backward_sources(Given(stored, executor, "bhsd", None), problem, 1.0, settings)
        names |= {source.name for source in sources}
    yield _Job(_Call(stored, given), frozenset(names))
    if not found.fused:
        yield from _packed_jobs(stored, problem, UNFUSED, executor.name, problem.compute_dtype, settings)


def _packed_jobs(
    stored: Stored, problem: Problem, operators: Sequence[Operator], backend: str, dtype: str, settings: Settings
) -> Iterator[_Job]:  # fmt: skip
    for one in jobs_of(stored, problem, operators, backend, dtype):
        yield _Job(one, one.names(settings))


def _distinct(jobs: Iterator[_Job]) -> list[_Job]:
    """Without those whose texts others compile."""
    found: list[_Job] = []
    known: set[str] = set()
    for one in jobs:
        if not one.names <= known:
            known |= one.names
            found.append(one)
    return found


def _compile(jobs: Sequence[_Job]) -> tuple[Told, ...]:
    settings = current()
    with notice.heard() as told:
        for one in jobs:
            one.work.compile(settings)
    return tuple(told)


def _in_processes(jobs: Sequence[_Job], processes: int) -> tuple[Told, ...]:
    settings = current()
    if cache.folder(settings) is None:
        raise BackendError(
            "processes wanted as 1 without a disk cache, where several would leave what they compile, got more. "
            "Set SPLAT_CACHE_DIR to a folder of yours, unset SPLAT_CACHE, or give processes=1."
        )
    if not sys.executable:
        raise BackendError("processes wanted as 1 where Python is embedded in a program, got more. Give processes=1.")
    shares = [jobs[number::processes] for number in range(processes)]
    words = f"{len(jobs)} kernels in {processes} processes"
    with notice.showing(words, settings.progress), ThreadPoolExecutor(processes) as pool:
        answers = list(pool.map(_ask, shares))
    told = tuple(one for answer, _ in answers for one in answer)
    for one in told:
        notice.log(one)
    for _, error in answers:
        if error is not None:
            raise error
    return told


def _ask(jobs: Sequence[_Job]) -> tuple[tuple[Told, ...], Exception | None]:
    """What a process of its own answers: what it compiled, and what it raised."""
    places = os.pathsep.join(place for place in sys.path if place)
    given = {**os.environ, "PYTHONPATH": places, "SPLAT_PROGRESS": "0"}
    command = [sys.executable, "-W", "ignore", "-c", WORKER]  # warnings were given when the jobs were planned
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, env=given) as process:  # noqa: S603 - our own text
        try:
            answer, _ = process.communicate(pickle.dumps([one.work for one in jobs]))
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        failed = f"processes: one that compiles ended with status {process.returncode}. Give processes=1 to see why."
        return (), BackendError(failed)
    told, error = pickle.loads(answer)  # noqa: S301 - our own process wrote it
    return told, error


def serve() -> None:
    """What such a process does: the jobs on its standard input, the answer on its standard output."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what anybody prints is no answer
    error: Exception | None = None
    settings = current()
    with notice.heard() as told:
        for one in pickle.load(sys.stdin.buffer):  # noqa: S301 - our own process wrote it
            try:
                one.compile(settings)
            except Exception as raised:  # noqa: BLE001 - raised again by who asked
                error = error or raised
    with answers:
        pickle.dump((tuple(told), error), answers)
