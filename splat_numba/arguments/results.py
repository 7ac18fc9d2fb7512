"""Where results go: the caller's ``out``, checked, or a fresh array."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from splat_numba.arguments.tokens import Described
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.runtime.arrays import Array, check_out, empty, export_array, import_out
from splat_numba.runtime.tensors import mark_written


class HasValueDim(Protocol):
    """A problem of either package."""

    @property
    def value_dim(self) -> int:
        """Width of a value, and of a row of the result."""


@dataclass(frozen=True, slots=True)
class Written:
    """The array that a call writes, and what the caller gave for it, None where it is fresh."""

    array: Array
    given: Any

    def exported(self, like: Any) -> Any:
        """The caller's array, or the fresh one as an array of the kind of ``like``."""
        return export_array(self.array.bits, self.array.dtype, like) if self.given is None else self.given


def result_shape(q: Described, problem: HasValueDim) -> tuple[int, ...]:
    """Shape of out, and of its gradient, as the caller laid q out."""
    return (*q.shape[:-1], problem.value_dim)


def check_fits(name: str, array: Described, shape: tuple[int, ...], dtype: str) -> None:
    """Raise unless ``array`` (out or its gradient) has the result's shape and dtype."""
    if array.shape != shape:
        raise ArgumentError(f"{name} wanted of shape {shape}, got {array.shape}. Give one of this shape.")
    if array.dtype != dtype:
        raise ArgumentTypeError(f"{name} wanted as {dtype} as q is, got {array.dtype}. Give one of this dtype.")


def place_result(
    out: Any, shape: tuple[int, ...], dtype: str, inputs: Mapping[str, Array], name: str = "out"
) -> Written:
    """The caller's ``out``, or another argument of this name, checked against what is read; or a fresh array."""
    if out is None:
        return Written(Array(empty(shape, dtype), dtype, "numpy"), None)
    given = import_out(out, name)
    check_fits(name, given, shape, dtype)
    check_out(given.bits, {one: array.bits for one, array in inputs.items()}, name)
    mark_written(out)
    return Written(given, out)
