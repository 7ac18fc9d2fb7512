"""What the operators ask of a backend, and what one compiled mask is to all of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, Protocol

from splat_numba.arguments.masks import Stored
from splat_numba.errors import ArgumentError
from splat_numba.gen.plans.backward import BackwardPlan
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings


@dataclass(frozen=True, slots=True)
class HeadsMask:
    """A mask of a call and the query heads that use it; None: all, however many there are. problem: that its plans are
    made for, whose text serves the call.
    """

    mask: Stored
    heads: tuple[int, ...] | None
    problem: Problem


class Compiled(Protocol):
    """Machine code of one plan: its (first) text, the file of it, and whether the code came from the disk cache."""

    @property
    def source(self) -> KernelSource:
        """The generated text."""

    @property
    def path(self) -> Path | None:
        """The file of the text, None if the cache folder cannot be used."""

    @property
    def cached(self) -> bool:
        """Whether the machine code came from disk."""


@dataclass(frozen=True, slots=True, repr=False)
class Part:
    """One mask and the query heads that use it; heads None: all, however many there are. compiled: what the
    executor made of the plan, a Compiled and more that nobody else asks for.
    """

    mask: Stored
    heads: tuple[int, ...] | None
    plan: Plan
    compiled: Any

    def __repr__(self) -> str:
        heads = "" if self.heads is None else f", heads {list(self.heads)}"
        return f"<Part {self.plan.summary}{heads}>"


class Recipe(Protocol):
    """Where the parts of a call come from: the mask of attention(), or a Kernel."""

    @property
    def layout(self) -> str:
        """The order of the arrays' axes."""

    @property
    def scale(self) -> float | None:
        """The factor of the scores, None for 1/sqrt(head_dim)."""

    @property
    def fused(self) -> bool | None:
        """Whether attention is one kernel, or (False) the packed operators one after the other; None: as planned."""

    @property
    def executor(self) -> Executor:
        """Who makes the parts."""

    @property
    def identity(self) -> tuple[object, ...] | None:
        """Immutable objects that, with the problem, decide what parts_for() gives; None where some may change."""

    def masks_for(self, problem: Problem) -> tuple[HeadsMask, ...]:
        """The masks for these arrays, each with its query heads; nothing is planned. Raises as parts_for()."""

    def parts_for(self, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> tuple[Part, ...]:
        """The compiled masks for these arrays. Raises ArgumentError, PatternError or FormatError if they do not fit."""


Again = Callable[[tuple[Any, ...]], "tuple[Any, ...] | None"]
"""A call of arrays, which gives None for those that are not what it was made for."""


@dataclass(frozen=True, slots=True)
class BackwardCall:
    """The arrays of a backward call as given. dlse, kv_lengths and out_grads may be None, and each of the last; frozen:
    of q, k and v those whose gradients are not wanted.
    """

    dout: Any
    q: Any
    k: Any
    v: Any
    out: Any
    lse: Any
    dlse: Any
    kv_lengths: Any
    frozen: frozenset[str]
    out_grads: Any = None


class Executor(Protocol):
    """A backend: plans, compiles and runs."""

    @property
    def name(self) -> str:
        """As in the argument ``backend``."""

    @property
    def target(self) -> str | None:
        """The one asked for, None for any."""

    @property
    def transformable(self) -> bool:
        """Whether JAX's transforms have an operation for it."""

    @property
    def emulated(self) -> bool:
        """Whether it runs texts without a machine, in seconds where that takes microseconds."""

    def measured(self) -> Executor:
        """The executor that measures before it chooses. Raises ArgumentError where nothing is timed."""

    def check_present(self) -> None:
        """Raise BackendError, which says why, where this machine cannot run it."""

    def with_precision(self, precision: str) -> Executor:
        """The one whose products of float32 are of this precision. Raises ArgumentError where there is no choice."""

    def precise(self, problem: Problem) -> Problem:
        """A call's problem with that precision. Raises ArgumentError for arrays, or a target, that have no choice."""

    def sources(self, plan: Plan) -> tuple[KernelSource, ...]:
        """The texts of a plan of its own, in the order of the passes, equal ones once. Nothing is compiled."""

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered."""

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and machine code for one mask, remembered. ragged: key lengths may differ between batch entries."""

    def serves_every_length(self, part: Part) -> bool:
        """Whether adapt() can make the part fit other lengths."""

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part for another problem of the same dims and dtype."""

    def planned_for(self, part: Part, problem: Problem) -> Problem:
        """The problem that a part's plan is for once adapt() has made the part fit ``problem``."""

    def with_source(self, part: Part, source: KernelSource, settings: Settings) -> Part:
        """The part run from another text."""

    def resources(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Facts about the machine code."""

    def listing(self, part: Part, form: str) -> Any:
        """The machine code as "ptx", "sass" or "cubin". Raises BackendError where there is no such form."""

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """Run attention on the caller's arrays: out, or (out, lse)."""

    def plan_backward(self, one: HeadsMask, scale: float, settings: Settings) -> BackwardPlan:
        """How the gradients for one mask are made, remembered."""

    def backward_sources(
        self, recipe: Recipe, problem: Problem, scale: float, settings: Settings
    ) -> tuple[KernelSource, ...]:
        """The texts of a recipe's gradients, equal ones once."""

    def compile_backward(self, recipe: Recipe, problem: Problem, scale: float, settings: Settings) -> None:
        """Compile them, so that the first gradient need not wait. Raises CompileError."""

    def backward(self, recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
        """The gradients of q, k and v; None for frozen ones. Raises BackendError where there are none."""

    def attend_again(self, recipe: Recipe, arrays: tuple[Any, ...], return_lse: bool) -> Again | None:
        """A faster attend() without lengths, for others that are as these q, k and v but for their addresses: it gives
        (out, lse), whose lse may be None where it is not wanted. None where there is none.
        """

    def backward_again(self, recipe: Recipe, call: BackwardCall) -> Again | None:
        """Likewise backward() of q, k, v, out, dout, lse and, where the call has it, dlse, in this order."""


def refuse_measuring(executor: Executor) -> NoReturn:
    """Of an executor that times nothing: raise ArgumentError."""
    raise ArgumentError(
        f"autotune wanted with backend 'cuda' or 'cpu', whose plans it times, got backend {executor.name!r}, whose "
        "time tells nothing. Leave autotune out, or give another backend."
    )
