"""Tensor maps: what Hopper's copy engine is told of an array, to fetch boxes of it. A driver makes their bytes.

Boxes of 16-bit numbers are 128 bytes wide and come swizzled, as matrix products want them. Boxes of float32 are a whole
row of 16 bytes, such as the levels of a query, and come as they are.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.errors import PlanError
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.schedules.views import Box, View

MAP_BYTES = 128
ALIGNMENT = 16
LARGEST_STRIDE = 2**40
SPAN = 64  # 16-bit numbers of a row that one copy fetches: the 128 bytes of a swizzle
LEVELS = 4  # float32 numbers of a row that one copy fetches


@dataclass(frozen=True, slots=True)
class BoxMap:
    """The map of an array's view, for copies of one box."""

    tensor: Tensor
    view: View
    box: Box


@dataclass(frozen=True, slots=True)
class TensorMapArguments:
    """What cuTensorMapEncodeTiled is given: pointer, sizes (5), strides of axes 1 to 4 in bytes, box (5)."""

    dtype: str
    pointer: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]

    @property
    def swizzled(self) -> bool:
        """Whether boxes are laid out for matrix products."""
        return self.dtype != "float32"


def box_of_rows(tensor: Tensor, rows: int) -> BoxMap:
    """The map of an array for copies of so many neighbouring rows of one head."""
    seq = tensor.sizes[2]
    return BoxMap(tensor, View(0, 1, seq, max(seq, 1), 1), Box(rows))


def describable(pointer: int, tensor: Tensor) -> bool:
    """Whether the copy engine can read the array in place."""
    *steps, unit = tensor.strides
    if 0 in tensor.sizes:
        return True
    if pointer % ALIGNMENT or (unit != 2 and tensor.sizes[3] > 1):
        return False
    return all(
        0 < step < LARGEST_STRIDE and step % ALIGNMENT == 0
        for step, size in zip(steps, tensor.sizes[:3], strict=True)
        if size > 1
    )


def tensor_map_arguments(one: BoxMap, pointer: int, spare: int) -> TensorMapArguments:
    """The map of a describable array whose first element is at ``pointer``. spare: a valid device address, for an array
    without any element.

    An axis of one element gets a stride that the engine accepts, and an empty one counts as one element, which is never
    fetched: there are no tiles. Raises PlanError for a view that reaches beyond the sequence.
    """
    tensor, view, box = one.tensor, one.view, one.box
    batch, heads, seq, dim = tensor.sizes
    to_batch, to_head, to_row, _ = tensor.strides
    inner, outer = max(view.inner, 1), max(view.outer, 1)
    last = view.offset + view.inner_step * (inner - 1) + view.outer_step * (outer - 1)
    if last >= max(seq, 1):
        raise PlanError(f"plan wanted views of {seq} tokens, got {view}, which reaches {last}. Please report the mask.")
    empty = 0 in tensor.sizes
    row = to_row if seq > 1 else ALIGNMENT
    sizes = (dim, inner, outer, max(heads, 1), max(batch, 1))
    steps = (view.inner_step * row, view.outer_step * row, to_head, to_batch)
    strides = tuple(step if size > 1 and not empty else ALIGNMENT for step, size in zip(steps, sizes[1:], strict=True))
    base = spare if empty else pointer + view.offset * row
    if empty:
        sizes = (max(dim, 1), 1, 1, 1, 1)
    width = LEVELS if tensor.dtype == "float32" else SPAN
    return TensorMapArguments(tensor.dtype, base, sizes, strides, (width, box.inner, box.outer, 1, 1))
