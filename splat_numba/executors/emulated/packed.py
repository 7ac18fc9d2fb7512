"""The packed operators on the emulator: the texts that a GPU would run, on NumPy, for small sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from numpy.typing import NDArray

from splat_numba.emulator.machine import EmulatedMachine
from splat_numba.executors.gpu.packed import PACKED_AXES, lists_of
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.packed import in_place, packed_schedule
from splat_numba.settings import Settings


@dataclass(frozen=True, slots=True)
class EmulatedPackedExecutor:
    """Nothing is compiled, and nothing remembered but the mask's lists."""

    name: ClassVar[str] = "emulate"

    def run(
        self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, NDArray[Any]], settings: Settings
    ) -> None:  # fmt: skip
        """Write the last array. Raises EmulationError for a fault in a text."""
        machine, (*names, last) = EmulatedMachine(), arrays
        whole = {name: one[..., None] if one.ndim == PACKED_AXES else one for name, one in arrays.items()}
        tensors = {name: machine.place_as_it_is(name, whole[name], problem.dtype) for name in names}
        batch, heads, rows, dim = whole[last].shape
        tensors[last] = machine.allocate_contiguous(last, (batch, heads, rows, dim), problem.dtype)
        copied = frozenset(name for name, rule in in_place(tensors).items() if not rule.fits)
        lists = lists_of(acsr, transposed=problem.transposed).lists
        machine.run(packed_schedule(problem, lists, tensors, Gpu(), copied))
        whole[last][...] = machine.read(tensors[last])


EMULATED_PACKED = EmulatedPackedExecutor()
