"""The emulator as an executor: the texts that a GPU would run, on NumPy, for small sizes and for debugging."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.layouts import to_bhsd
from splat_numba.arguments.masks import Stored
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executor import Executor, Part, Recipe
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.boxes import BoxPass, Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Plan
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.sm90.attention import attention_entry
from splat_numba.gpu_kernel import passes_of, plan_for, render
from splat_numba.operands import export_lse, import_operands, prepare_out
from splat_numba.runtime.cuda.arrays import check_operand_dtype
from splat_numba.runtime.cuda.copies import padded, padded_rows, padded_strides
from splat_numba.runtime.cuda.passes import Shapes, pass_maps, pass_numbers
from splat_numba.runtime.cuda.tables import view_steps
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings, current

GPU = Gpu()  # plans are those of a whole GPU; the emulated one runs what one multiprocessor holds, block by block


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts of a plan's passes, which is all that the emulator needs."""

    sources: tuple[KernelSource, ...]
    path: Path | None = None
    cached: bool = False

    @property
    def source(self) -> KernelSource:
        """The first pass's text."""
        return self.sources[0]


@lru_cache(maxsize=256)
def _text(traits: Traits) -> KernelSource:
    """The text of these traits, remembered."""
    return render(traits)


class EmulatedExecutor:
    """As on a GPU, every length has its plan; nothing is compiled."""

    name = "emulate"

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered. Raises ArgumentTypeError for dtypes that a GPU does not multiply."""
        return self.part(mask, None, problem, scale, settings).plan

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and texts for one mask."""
        check_operand_dtype("dtype", problem.dtype)
        plan = plan_for(mask, problem, GPU, ragged=ragged, negate=scale < 0)
        return Part(mask, heads, plan, Texts(tuple(_text(one.traits) for one in passes_of(plan))))

    def serves_every_length(self, part: Part) -> bool:
        """Whether the mask does: plans are made anew."""
        return isinstance(part.mask, Pattern)

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part planned for these lengths; a text of the caller's stays."""
        found = self.part(part.mask, part.heads, problem, scale, settings, ragged=ragged)
        same = [one.traits for one in passes_of(part.plan)] == [one.traits for one in passes_of(found.plan)]
        return replace(found, compiled=part.compiled) if same else found

    def with_source(self, part: Part, source: KernelSource, settings: Settings) -> Part:
        """The part run from another text. Raises ArgumentError for several texts, CompileError."""
        if len(set(part.compiled.sources)) != 1:
            raise ArgumentError(
                f"kernel wanted with one text, got {len(set(part.compiled.sources))}. Choose a mask of one pass."
            )
        source.check_defines(*(attention_entry(one.traits).name for one in passes_of(part.plan)[:1]))
        return replace(part, compiled=Texts((source,) * len(part.compiled.sources)))

    def resources(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Shared memory of the largest block; there is no machine code."""
        sizes = [attention_entry(one.traits).shared_bytes for part in parts for one in passes_of(part.plan)]
        return {"shared_bytes": max(sizes, default=0), "cached": [part.compiled.cached for part in parts]}

    def listing(self, part: Part, form: str) -> NoReturn:
        """None of the forms. Raises BackendError."""
        raise BackendError(
            f"{form} wanted of a kernel for backend 'cuda', got one for 'emulate'. Compile it for 'cuda'."
        )

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """Check the arguments, then run every pass of every part. Raises EmulationError for a fault in a text."""
        operands = import_operands(q, k, v, recipe.layout)
        problem = operands.problem
        check_operand_dtype("q", problem.dtype)
        scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
        lengths = check_kv_lengths(kv_lengths, problem, operands.axes)
        written = prepare_out(out, operands)
        parts = recipe.parts_for(problem, scale, current(), ragged=kv_lengths is not None)
        device = EmulatedCall(problem, operands.views, lengths, scale)
        for part in parts:
            heads = tuple(range(problem.heads_q)) if part.heads is None else part.heads
            for one, source in zip(passes_of(part.plan), part.compiled.sources, strict=True):
                device.run(one, source, heads)
        to_bhsd(written.array.bits, operands.layout)[...] = device.out()
        result = written.exported(q)
        return (result, export_lse(device.lse(), operands, q)) if return_lse else result


class EmulatedCall:
    """One call's arrays in an emulated GPU's memory. views: q, k, v as (batch, heads, seq, dim) uint16."""

    def __init__(
        self, problem: Problem, views: dict[str, NDArray[Any]], lengths: NDArray[np.int64], scale: float
    ) -> None:
        self._problem = problem
        self._memory = GlobalMemory()
        self._maps: list[TensorMapArguments] = []
        self._places: dict[str, int] = {}
        for name in ("q", "k", "v"):
            self._places[name] = self._place(padded_rows(views[name]))
        sizes = (problem.batch, problem.heads_q, problem.seq_q, problem.value_dim)
        q, k, v, self._out = (
            Layout(shape, padded_strides(shape), problem.dtype)
            for shape in (*(views[name].shape for name in ("q", "k", "v")), sizes)
        )
        self._shapes = Shapes(q, k, v, self._out, scale)
        self._out_bytes = int(np.prod(sizes[:3])) * padded(problem.value_dim) * 2
        self._lse_bytes = int(np.prod(sizes[:3])) * 4
        self._places["out"] = self._memory.allocate(self._out_bytes)
        self._places["lse"] = self._memory.allocate(self._lse_bytes)
        self._places["kv_lengths"] = self._place(lengths.astype(np.int32))
        self._places["counter"] = self._place(np.zeros(2, np.uint32))

    def _place(self, array: NDArray[Any]) -> int:
        """The address of a copy of the array."""
        address = self._memory.allocate(max(array.nbytes, 1))
        self._memory.read(address, array.nbytes)[...] = np.frombuffer(array.tobytes(), np.uint8)
        return address

    def _place_maps(self, maps: list[TensorMapArguments]) -> int:
        """The address of tensor maps: of each its number among all."""
        words = np.zeros((max(len(maps), 1), MAP_BYTES // 8), np.uint64)
        words[: len(maps)] = (len(self._maps) + np.arange(len(maps)))[:, None]
        self._maps.extend(maps)
        return self._place(words)

    def run(self, one: BoxPass, source: KernelSource, heads: tuple[int, ...]) -> None:
        """Launch a pass for some query heads."""
        table, places = one.table, self._places
        numbers = pass_numbers(one, self._shapes, heads)
        items = len(table.block) * len(heads) * self._problem.batch
        grid = min(items, one.traits.blocks_per_multiprocessor)
        if not grid or not self._problem.seq_q:
            return
        maps = pass_maps(one, self._shapes, places["q"], places["k"], places["v"], spare=places["counter"])
        first_map = self._place_maps(maps)
        tables = {"rows": table.rows, "block": table.block, "piece": table.piece, "bits": table.bits}
        tables |= {"views": view_steps(table), "heads": np.array(heads, np.int32)}
        pointers = {**places, **{name: self._place(array) for name, array in tables.items()}}
        pointers |= {"q_maps": first_map, "kv_maps": first_map + MAP_BYTES * len(table.q_views)}
        entry = attention_entry(one.traits)
        launch(source.text, source.name, entry, {**pointers, **numbers}, self._memory, self._maps, grid=grid)

    def out(self) -> NDArray[np.uint16]:
        """(batch, heads, seq_q, value_dim) as written."""
        dim = self._problem.value_dim
        numbers = self._memory.read(self._places["out"], self._out_bytes).view(np.uint16)
        found: NDArray[np.uint16] = numbers.reshape(*self._out.sizes[:3], padded(dim))[..., :dim]
        return found

    def lse(self) -> NDArray[np.float32]:
        """(batch, heads, seq_q) as written."""
        return self._memory.read(self._places["lse"], self._lse_bytes).view(np.float32).reshape(self._out.sizes[:3])


EMULATED: Executor = EmulatedExecutor()
