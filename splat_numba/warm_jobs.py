"""What warm_up compiles: a job a kernel, of attention and of the packed operators, each with the names of its texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Any, Protocol, get_args

from splat_numba import api
from splat_numba.arguments.masks import Mask, Stored, store_mask
from splat_numba.arguments.typed import Ahead, Dtype
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.executor import Executor
from splat_numba.executors.given import Given
from splat_numba.executors.packed.ahead import BACKWARD, FORWARD, UNFUSED, jobs_of
from splat_numba.gen.packed.problem import Operator
from splat_numba.gen.plans.problem import Problem
from splat_numba.plain import shown
from splat_numba.settings import Settings, current


class Work(Protocol):
    """What a process is given to compile."""

    def compile(self, settings: Settings) -> object:
        """Compile it, or read it from disk."""


@dataclass(frozen=True, slots=True)
class Call:
    """One call of compile()."""

    mask: Stored
    options: dict[str, Any]

    def compile(self, settings: Settings) -> object:
        """Its kernel."""
        return api.compile(self.mask, **self.options)


@dataclass(frozen=True, slots=True)
class Job:
    """names: of the texts that the work compiles."""

    work: Work
    names: frozenset[str]


def several(name: str, given: Any) -> tuple[Any, ...]:
    """An argument that may be one or a list of some. Raises ArgumentError for none."""
    if not isinstance(given, (list, tuple)):
        return (given,)
    if not given:
        raise ArgumentError(f"{name} wanted as one or a list of some, got none. Give one.")
    return tuple(given)


def check_operators(operators: Any, backend: str) -> tuple[str, ...]:
    """Their names. Raises ArgumentError for others, BackendError for a backend that compiles none of them."""
    found, known = several("operators", operators), get_args(Ahead)
    for one in found:
        if not isinstance(one, str) or one not in known:
            raise ArgumentError(f"operators wanted among {', '.join(known)}, got {shown(one)}. Name some of them.")
        if one != "attention" and backend == "emulate":
            raise BackendError(
                f"operators wanted as attention with backend 'emulate', whose packed operators are not compiled, got "
                f"{shown(one)}. Leave it out."
            )
    return found


def make_jobs(
    masks: Sequence[Mask], dims: Sequence[int], dtypes: Sequence[Dtype], options: dict[str, Any],
    operators: Sequence[str] = ("attention",),
) -> Iterator[Job]:  # fmt: skip
    """The jobs of each mask, dim and dtype, planned here: what cannot be compiled is refused before anything is."""
    executor, settings = choose_executor(options["backend"], options["target"]), current()
    packed = [one for one in operators if one != "attention"]
    found = [FORWARD[one] for one in packed] + [BACKWARD[one] for one in packed if options["backward"]]
    asked = tuple(chain.from_iterable(found))
    for dim, dtype in product(dims, dtypes):
        problem = api.make_problem(options["seq_q"], options["seq_kv"], dim, None, 1, None, 1, dtype)
        given = {**options, "head_dim": dim, "dtype": problem.dtype}
        for mask in masks:
            stored = store_mask(mask, problem.seq_q, problem.seq_kv)
            if "attention" in operators:
                yield from _attention_jobs(stored, given, problem, executor, settings)
            yield from _packed_jobs(stored, problem, asked, executor.name, problem.dtype, settings)


def _attention_jobs(
    stored: Stored, given: dict[str, Any], problem: Problem, executor: Executor, settings: Settings
) -> Iterator[Job]:  # fmt: skip
    found = executor.plan(stored, problem, 1.0, settings)
    names = {source.name for source in executor.sources(found)}
    if given["backward"]:
        # Of one forward text there may be several of gradients.
        sources = executor.backward_sources(Given(stored, executor, "bhsd", None), problem, 1.0, settings)
        names |= {source.name for source in sources}
    yield Job(Call(stored, given), frozenset(names))
    if not found.fused:
        yield from _packed_jobs(stored, problem, UNFUSED, executor.name, problem.compute_dtype, settings)


def _packed_jobs(
    stored: Stored, problem: Problem, operators: Sequence[Operator], backend: str, dtype: str, settings: Settings
) -> Iterator[Job]:  # fmt: skip
    for one in jobs_of(stored, problem, operators, backend, dtype):
        yield Job(one, one.names(settings))


def distinct(jobs: Iterator[Job]) -> list[Job]:
    """Without those whose texts others compile."""
    found: list[Job] = []
    known: set[str] = set()
    for one in jobs:
        if not one.names <= known:
            known |= one.names
            found.append(one)
    return found
