"""Kernel: what compile() returns, the plan, text and machine code for one mask, or for one mask a head."""

from __future__ import annotations

import os
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, overload

from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.masks import Stored, store_mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.typed import Array
from splat_numba.bridges.torch.watch import is_watched
from splat_numba.errors import ArgumentError
from splat_numba.executors.executor import Compiled, Executor, HeadsMask, Part
from splat_numba.executors.vjp import with_vjp
from splat_numba.formats.pattern_runs import check_lengths
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.graphs import stay_outside_graphs
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current
from splat_numba.signatures import strict


@dataclass(frozen=True, slots=True, repr=False, eq=False, weakref_slot=True)
class Kernel:
    """A compiled attention kernel; call it with arrays. Batch and head counts may vary from call to call.

    A kernel whose masks are Patterns in closed form serves every length; any other serves the lengths it was made for.
    On a GPU other lengths, and key lengths a batch entry, are planned anew at their first call.
    ``parts``: one for every distinct mask; plan, source and path are the first one's. ``edited``: the text of
    with_source(). A pickle holds the recipe, masks and sizes: loading it plans for the machine at hand and takes the
    code from the cache, or compiles it where it is not there.
    """

    parts: tuple[Part, ...]
    problem: Problem
    scale: float
    layout: str
    executor: Executor
    edited: KernelSource | None = None

    def __repr__(self) -> str:
        more = f" and {len(self.parts) - 1} more masks" if len(self.parts) > 1 else ""
        return f"<Kernel {self.plan.summary}{more}{', edited source' if self.edited else ''}>"

    def _repr_html_(self) -> str:
        from splat_numba.gen.shown.picture import plan_html  # which notebooks need alone

        return plan_html(self.plan, repr(self), [("source", str(self.path or "in memory"))])

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        masks = tuple((part.mask, part.heads) for part in self.parts)
        backward = self.plan.backward is not None
        return _compiled_again, (masks, self.problem, self.scale, self.layout, self.executor, self.edited, backward)

    def __copy__(self) -> Kernel:
        return self  # nothing of it can change

    def __deepcopy__(self, memo: object) -> Kernel:
        return self

    @property
    def plan(self) -> Plan:
        """The plan (of the first mask, where heads have different ones)."""
        return self.parts[0].plan

    @property
    def source(self) -> str:
        """The generated Python source."""
        return self._compiled.source.text

    @property
    def _compiled(self) -> Compiled:
        found: Compiled = self.parts[0].compiled
        return found

    @property
    def fused(self) -> bool:
        """True: a kernel is one text a mask, which it runs whatever the plan predicts of the packed operators."""
        return True

    @property
    def backward_sources(self) -> dict[str, str]:
        """The generated texts of the gradients by the names of their files, whether they are compiled or not."""
        sources = self.executor.backward_sources(self, self.problem, self.scale, current())
        return {one.name: one.text for one in sources}

    def with_backward(self) -> Kernel:
        """The same kernel with the gradients planned and compiled beforehand; ``plan.backward`` says how they are made.

        Raises CompileError.
        """
        settings, executor = current(), self.executor
        executor.compile_backward(self, self.problem, self.scale, settings)
        parts = tuple(
            replace(part, plan=replace(part.plan, backward=executor.plan_backward(one, self.scale, settings)))
            for part, one in zip(self.parts, self.masks_for(self.problem), strict=True)
        )  # fmt: skip
        return replace(self, parts=parts)

    @property
    def path(self) -> Path | None:
        """The file of the generated source, None if the cache folder cannot be used."""
        return self._compiled.path

    def explain(self) -> str:
        """The plans in words."""
        return "\n\n".join(part.plan.explain() for part in self.parts)

    def with_source(self, path: str | os.PathLike[str]) -> Kernel:
        """The same kernel run from the text in ``path``, for trying an edit: copy ``kernel.path``, change it, rerun.

        Raises ArgumentError for a kernel with several masks or a file that cannot be read, CompileError, naming the
        file, where its text does not compile.
        """
        return _with_text(self, KernelSource.from_file(path))

    @property
    def resources(self) -> dict[str, Any]:
        """Facts about the machine code: ``cached``, whether it came from the disk cache, for each part.

        On a GPU also ``registers`` (of a thread) and ``shared_bytes`` (of a block), the most of any pass,
        ``spill_bytes``, the sum, and ``warnings`` and ``log`` of the assembler.
        """
        return self.executor.resources(self.parts)

    def ptx(self) -> str:
        """The virtual assembly of the first mask's first pass. Raises BackendError for a CPU kernel."""
        return str(self.executor.listing(self.parts[0], "ptx"))

    def sass(self) -> str:
        """The machine's assembly, likewise. Raises BackendError for a CPU kernel, or without a disassembler."""
        return str(self.executor.listing(self.parts[0], "sass"))

    @property
    def cubin(self) -> bytes:
        """The machine code, likewise. Raises BackendError for a CPU kernel."""
        return bytes(self.executor.listing(self.parts[0], "cubin"))

    @property
    def identity(self) -> tuple[object, ...]:
        """The kernel itself: it cannot change."""
        return (self,)

    @overload
    def __call__(
        self, q: Array, k: Any, v: Any, *, kv_lengths: Any = None, out: Any = None, return_lse: Literal[False] = False
    ) -> Array: ...
    @overload
    def __call__(
        self, q: Array, k: Any, v: Any, *, kv_lengths: Any = None, out: Any = None, return_lse: Literal[True]
    ) -> tuple[Array, Any]: ...
    @overload
    def __call__(self, q: Any, k: Any, v: Any, *, kv_lengths: Any = None, out: Any = None, return_lse: bool) -> Any: ...
    @strict(ATTENTION)
    def __call__(
        self, q: Any, k: Any, v: Any, *, kv_lengths: Any = None, out: Any = None, return_lse: bool = False
    ) -> Any:
        """Out, or (out, lse): see splat_numba.attention. Raises ArgumentError for shapes it was not compiled for."""
        if watched := is_watched(q, k, v):
            from splat_numba.bridges.torch.door import attend

            # The operator asks a kernel for all but its layout.
            return attend(self, (None, self.layout, "auto", None, False), q, k, v, kv_lengths, out, return_lse, watched)
        stay_outside_graphs("splat_numba")
        if return_lse is not False:
            return_lse = check_flag("return_lse", return_lse)
        return self.executor.attend(self, q, k, v, kv_lengths, out, return_lse)

    @strict(ATTENTION)
    def vjp(
        self, q: Any, k: Any, v: Any, *, kv_lengths: Any = None, frozen: Collection[str] = (), return_lse: bool = False
    ) -> Any:
        """(out, vjp), or (out, lse, vjp): see splat_numba.attention_vjp. Gradients come from generated text, whatever
        with_source() says. Raises ArgumentError for shapes it was not compiled for.
        """
        stay_outside_graphs("splat_numba")
        return with_vjp(self, q, k, v, kv_lengths, frozen, check_flag("return_lse", return_lse))

    def masks_for(self, problem: Problem) -> tuple[HeadsMask, ...]:
        """Its masks with their heads. Raises ArgumentError, PatternError if they do not fit the arrays."""
        self._check(problem)
        return tuple(HeadsMask(part.mask, part.heads, self.executor.planned_for(part, problem)) for part in self.parts)

    def parts_for(self, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> tuple[Part, ...]:
        """The parts, made to fit the arrays. Raises ArgumentError, PatternError if they cannot."""
        self._check(problem)
        return tuple(self.executor.adapt(part, problem, scale, settings, ragged=ragged) for part in self.parts)

    def _check(self, given: Problem) -> None:
        """Refuse arrays that the kernel was not compiled for."""
        for name, argument in (("head_dim", "q"), ("value_dim", "v"), ("dtype", "q")):
            self._check_same(argument, name, getattr(self.problem, name), getattr(given, name))
        lengths = (given.seq_q, given.seq_kv)
        for part in self.parts:
            if isinstance(part.mask, Pattern) and self.executor.serves_every_length(part):
                check_lengths(part.mask, *lengths)
                store_mask(part.mask, *lengths)  # which warns of queries that stand at the wrong end
            else:
                self._check_same("q and k", "lengths", (self.problem.seq_q, self.problem.seq_kv), lengths)
        if self.parts[0].heads is not None:
            self._check_same("q", "heads", self.problem.heads_q, given.heads_q)

    @staticmethod
    def _check_same(argument: str, name: str, wanted: object, got: object) -> None:
        if wanted != got:
            raise ArgumentError(
                f"{argument} wanted with {name} {wanted}, as compiled for, got {got}. Compile another kernel."
            )


def _compiled_again(
    masks: tuple[tuple[Stored, tuple[int, ...] | None], ...], problem: Problem, scale: float, layout: str,
    executor: Executor, edited: KernelSource | None, backward: bool,
) -> Kernel:  # fmt: skip
    """The kernel of a pickled recipe."""
    settings = current()
    parts = tuple(executor.part(mask, heads, problem, scale, settings) for mask, heads in masks)
    kernel = Kernel(parts, problem, scale, layout, executor)
    kernel = kernel if edited is None else _with_text(kernel, edited)
    return kernel.with_backward() if backward else kernel


def _with_text(kernel: Kernel, source: KernelSource) -> Kernel:
    if len(kernel.parts) > 1:
        raise ArgumentError(f"kernel wanted with one mask, got {len(kernel.parts)}. Compile one for the mask alone.")
    part = kernel.executor.with_source(kernel.parts[0], source, current())
    return replace(kernel, parts=(part,), edited=source)
