"""Recorder: stages over named arrays written down as a schedule, and what that leaves for the way back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flurka_numba.gpu.stages import Stage
from flurka_numba.problem import Problem
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules import tensor as tensors
from splat_numba.gen.schedules.schedule import Place, Schedule, ScheduleBuilder, part_bytes
from splat_numba.gen.schedules.tensor import Axes, Tensor, as_word, contiguous, padded, padded_bytes, padded_strides
from splat_numba.gen.schedules.tensor_map import BoxMap, box_of_rows
from splat_numba.gen.targets.gpu.copying import Copying

KEPT = "kept"  # the buffer of what a forward pass leaves for gradients
AXES = ("batch", "head", "row")  # whose strides stages take
Operand = Tensor | Place | None


@dataclass(frozen=True, slots=True)
class Output:
    """An array that a schedule writes and a call makes: (batch, heads, rows, dim) of which the caller sees the last
    ``axes`` axes. side_by_side: stored as (batch, rows, heads, dim).
    """

    shape: Axes
    axes: int
    side_by_side: bool


@dataclass(frozen=True, slots=True)
class Recording:
    """outputs: by their buffers, in the order in which they became arguments. kept: bytes of the buffer KEPT."""

    schedule: Schedule
    outputs: Mapping[str, Output]
    kept: int


class GpuRecorder:
    """Of one problem's forward pass, or of its gradients. operands: the call's arrays, in the order of its arguments;
    copied: which of them stages cannot take in place. axes: how many a result's array has, by its name.

    target: that texts are of. views: whether the framework has views of its arrays, so that results may be stored with
    heads side by side; keeps: whether gradients follow.
    """

    def __init__(
        self, problem: Problem, gpu: Gpu, operands: Mapping[str, Tensor], copied: frozenset[str],
        axes: Mapping[str, int], *, target: str, views: bool = False, keeps: bool = False,
    ) -> None:  # fmt: skip
        self.problem, self.gpu, self.target = problem, gpu, target
        self.builder = ScheduleBuilder(*operands, copying=Copying(gpu.arch))
        self.lengths = self.builder.argument("kv_lengths") if problem.ragged else None
        self.omega = self.builder.argument("omega") if problem.random else None
        self._operands, self._copied, self._axes, self._views = operands, copied, axes, views
        self._outputs: dict[str, Output] = {}
        self._staged: list[tuple[Tensor, Tensor]] = []
        self.keeps, self._kept = keeps, 0
        self._itemsize = ITEMSIZE[problem.dtype]

    def operand(self, name: str) -> Tensor:
        """An array of the call."""
        return self._operands[name]

    def readable(self, tensor: Tensor) -> Tensor:
        """An operand, or a copy that every stage can read."""
        return self.builder.readable(tensor, copied=tensor.buffer in self._copied)

    def kept(self, nbytes: int) -> Place:
        """Memory that gradients read after this schedule; the same places for every recording of a problem."""
        if not self.keeps:
            return self.builder.scratch(nbytes)
        place = Place(KEPT, self._kept)
        self.builder.argument(KEPT)
        self._kept += part_bytes(nbytes)
        return place

    def scratch(self, *sizes: int) -> list[Place]:
        """Memory of so many bytes each, between stages."""
        return [self.builder.scratch(nbytes) for nbytes in sizes]

    def rows(self, place: Place, shape: Axes) -> Tensor:
        """An array with padded rows there."""
        return Tensor(shape, padded_strides(shape, self._itemsize), self.problem.dtype, *place)

    def scratch_rows(self, shape: Axes) -> Tensor:
        """The same between stages."""
        return self.rows(self.builder.scratch(padded_bytes(shape, self._itemsize)), shape)

    def result(self, name: str, shape: Axes, *, side_by_side: bool = False) -> Tensor:
        """An array for a call's result, fresh but for an out that was given. name: "out", or "d" before an argument's.

        Stages write whole rows of 16 bytes: where these do not fit, to scratch memory that is copied at the end.
        """
        if name in self._operands:
            return self.written(self._operands[name], copied=name in self._copied)
        wide = side_by_side and self._views
        self._outputs[name] = Output(shape, self._axes.get(name, 4), wide)
        self.builder.argument(name)
        dim = shape[3]
        strides = tensors.side_by_side(shape, self._itemsize) if wide else contiguous(shape, dim, self._itemsize)
        tensor = Tensor(shape, strides, self.problem.dtype, name)
        return self.written(tensor, copied=padded(dim, self._itemsize) != dim)

    def written(self, tensor: Tensor, *, copied: bool) -> Tensor:
        """Where stages write a result: there, or to scratch memory that is copied at the end."""
        if not copied:
            return tensor
        fresh = self.builder.tensor(tensor.sizes, tensor.dtype)
        self._staged.append((fresh, tensor))
        return fresh

    def launch(
        self, stage: Stage, tensors: Mapping[str, Operand], boxes: Mapping[str, int] | None = None, *,
        overlaps: bool = False,
    ) -> None:  # fmt: skip
        """Add a stage. tensors: its pointers and strides by the names of its parameters; those that are missing are 0.

        boxes: rows that one copy fetches of those that it has a tensor map of.
        """
        if not stage.grid:
            return
        numbers: dict[str, int | float] = {}
        pointers: dict[str, Operand] = {}
        maps: dict[str, tuple[BoxMap, ...]] = {}
        strides = {
            f"{name}_{axis}": as_word(step)
            for name, one in tensors.items() if isinstance(one, Tensor)
            for axis, step in zip(AXES, one.strides, strict=False)
        }  # fmt: skip
        mapped = {f"{name}_map": (name, rows) for name, rows in (boxes or {}).items()}
        for name, _ in stage.text.entry.parameters:
            if name in stage.numbers:
                numbers[name] = stage.numbers[name]
            elif name in mapped:
                of, rows = mapped[name]
                maps[name] = (self._box(tensors[of], rows),)
            elif name in strides:
                numbers[name] = strides[name]
            else:
                pointers[name] = tensors.get(name)
        self.builder.launch(stage.text, stage.grid, numbers, pointers, maps=maps, overlaps=overlaps)

    @staticmethod
    def _box(tensor: Operand, rows: int) -> BoxMap:
        if not isinstance(tensor, Tensor):
            raise TypeError(tensor)
        return box_of_rows(tensor, rows)

    def finish(self) -> Recording:
        """What was written down."""
        for source, target in self._staged:
            self.builder.copy(source, target)
        return Recording(self.builder.finish(), self._outputs, self._kept)
