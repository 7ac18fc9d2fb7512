"""What the packed operators ask of a backend: arrays as views with all their axes, a run over views, fresh results."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from numpy.typing import NDArray

from splat_numba.arguments.layouts import with_leading
from splat_numba.arguments.tokens import Described
from splat_numba.errors import ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.packed.problem import PackedProblem, RunTable
from splat_numba.runtime.arrays import Array, empty, export_array, import_array, on_gpu
from splat_numba.settings import Settings

S = TypeVar("S")


class View(Protocol):
    """Numbers wherever they are: a NumPy view, 16-bit numbers as uint16, or an array of a GPU."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all axes."""

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes."""

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""


class PackedMachine(Protocol):
    """Where a call runs."""

    def read(self, name: str, array: Any) -> Described:
        """An argument of this name. Raises ArgumentError, ArgumentTypeError, BackendError."""

    def view(self, given: Any, axes: int) -> Any:
        """What read() gave, with so many axes: a View."""

    def empty(self, shape: tuple[int, ...], dtype: str, missing: int) -> Any:
        """A View for results, whose first ``missing`` axes, all 1, the caller's arrays have not."""

    def export(self, view: Any, dtype: str, missing: int, like: Any) -> Any:
        """Results as an array of the kind of ``like``."""

    def run(self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, Any], settings: Settings) -> None:
        """Write the operator's last argument from the others, Views by name."""


class HostExecutor(Protocol):
    """Runs an operator over NumPy views."""

    @property
    def name(self) -> str:
        """Of the backend."""

    def run(
        self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, NDArray[Any]], settings: Settings
    ) -> None:  # fmt: skip
        """Write the operator's last argument from the others, by name; 16-bit numbers as uint16."""


@dataclass(frozen=True, slots=True)
class HostMachine:
    """Arrays in the CPU's memory, whatever runs over them."""

    executor: HostExecutor

    def read(self, name: str, array: Any) -> Array:
        """A view of an array of any framework."""
        if self.executor.name != "cpu" and on_gpu(array):
            raise ArgumentTypeError(
                f"{name} wanted in CPU memory for backend {self.executor.name!r} over such arrays, got a GPU array. "
                "Copy it there, or all of them to the GPU and leave backend out."
            )
        return import_array(name, array)

    def view(self, given: Array, axes: int) -> NDArray[Any]:
        """Its numbers."""
        return with_leading(given.bits, axes)

    def empty(self, shape: tuple[int, ...], dtype: str, missing: int) -> NDArray[Any]:
        """A fresh array."""
        return empty(shape, dtype)

    def export(self, view: NDArray[Any], dtype: str, missing: int, like: Any) -> Any:
        """The same memory."""
        return export_array(view.reshape(view.shape[missing:]), dtype, like)

    def run(
        self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, NDArray[Any]], settings: Settings
    ) -> None:  # fmt: skip
        """By the executor."""
        self.executor.run(problem, acsr, arrays, settings)


def kept(states: dict[tuple[int, bool], S], acsr: ACSR, transposed: bool, make: Callable[[RunTable], S]) -> S:
    """What was made of the run table of a mask, or of its transpose, kept in ``states`` as long as the mask: by
    identity, because equal masks may be cut differently.
    """
    key = id(acsr), transposed
    found = states.get(key)
    if found is None:
        found = states[key] = make(RunTable.transposed(acsr) if transposed else RunTable.of(acsr))
        weakref.finalize(acsr, states.pop, key, None).atexit = False
    return found
