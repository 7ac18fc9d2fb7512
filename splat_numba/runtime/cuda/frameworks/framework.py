"""What a framework's GPU arrays are to us: the questions that calls ask of them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Protocol

from splat_numba.runtime.cuda.arrays import GpuArray


class Framework(Protocol):
    """What a framework's arrays are to us. ``like`` is always one of its own arrays. What frameworks with nothing to
    prepare answer to two questions stands here.
    """

    def describe(self, name: str, array: Any) -> GpuArray:
        """Address, shape and strides. Raises ArgumentError for an array that may not be read this way."""

    def keys(self, arrays: Sequence[Any]) -> tuple[list[int], Hashable]:
        """Addresses, and everything else that describe() depends on, as fast as may be: every call asks."""

    def likeness(self, arrays: Sequence[Any]) -> Callable[[Sequence[Any]], list[int] | None] | None:
        """A faster keys() for arrays as these: their addresses, None for others. None where there is none."""
        return None

    def address(self, array: Any) -> int:
        """Of a fresh array."""

    def empty(self, shape: tuple[int, ...], dtype: str, like: Any) -> Any:
        """A fresh contiguous array on the device of ``like``."""

    def maker(self, shape: tuple[int, ...], dtype: str, like: Any) -> Callable[[Any], Any]:
        """What empty() does with this shape and dtype on this device, for calls that do it again and again. Its
        argument is an array there.
        """
        return lambda array: self.empty(shape, dtype, array)

    def side_by_side(self, shape: tuple[int, int, int, int], dtype: str, like: Any) -> Any:
        """A fresh array (batch, heads, rows, dim), stored as (batch, rows, heads, dim); None where views are copies."""

    def stream(self, arrays: Sequence[Any], ordinal: int) -> int:
        """The handle of the stream that work on these arrays belongs to."""

    def finish(self, stream: int) -> None:
        """Make results safe to use, where the framework does not know the stream."""
