"""Tensor maps: what the copy engine is told about an array seen through a View.

Five axes, fastest first: (dim, c1, c2, head, batch). The engine wants a base aligned to 16 bytes, strides that are
multiples of 16 below 2**40, and unit stride in the first axis; what does not fit is copied first, by copies.aligned().
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import PlanError
from splat_numba.gen.boxes import Box, View
from splat_numba.gen.targets.sm90.shape import SPAN
from splat_numba.runtime.cuda.driver import ask, driver

MAP_BYTES = 128
ALIGNMENT = 16
LARGEST_STRIDE = 2**40


@dataclass(frozen=True, slots=True)
class Layout:
    """A (batch, heads, seq, dim) array of 16-bit numbers but for its address: sizes, and strides in bytes."""

    sizes: tuple[int, int, int, int]
    strides: tuple[int, int, int, int]
    dtype: str


@dataclass(frozen=True, slots=True)
class TensorMapArguments:
    """What cuTensorMapEncodeTiled is given: pointer, sizes (5), strides of axes 1 to 4 in bytes, box (5)."""

    dtype: str
    pointer: int
    sizes: tuple[int, ...]
    strides: tuple[int, ...]
    box: tuple[int, ...]


def describable(pointer: int, layout: Layout) -> bool:
    """Whether the copy engine can read the array in place."""
    *steps, unit = layout.strides
    if 0 in layout.sizes:
        return True
    if pointer % ALIGNMENT or (unit != 2 and layout.sizes[3] > 1):
        return False
    return all(
        0 < step < LARGEST_STRIDE and step % ALIGNMENT == 0
        for step, size in zip(steps, layout.sizes[:3], strict=True)
        if size > 1
    )


def tensor_map_arguments(view: View, box: Box, pointer: int, layout: Layout, spare: int) -> TensorMapArguments:
    """The map of a describable array's view. spare: a valid device address, for an array without any element.

    An axis of one element gets a stride that the engine accepts, and an empty one counts as one element, which is never
    fetched: there are no tiles. Raises PlanError for a view that reaches beyond the sequence.
    """
    batch, heads, seq, dim = layout.sizes
    to_batch, to_head, to_row, _ = layout.strides
    inner, outer = max(view.inner, 1), max(view.outer, 1)
    last = view.offset + view.inner_step * (inner - 1) + view.outer_step * (outer - 1)
    if last >= max(seq, 1):
        raise PlanError(f"plan wanted views of {seq} tokens, got {view}, which reaches {last}. Please report the mask.")
    empty = 0 in layout.sizes
    row = to_row if seq > 1 else ALIGNMENT
    sizes = (dim, inner, outer, max(heads, 1), max(batch, 1))
    steps = (view.inner_step * row, view.outer_step * row, to_head, to_batch)
    strides = tuple(step if size > 1 and not empty else ALIGNMENT for step, size in zip(steps, sizes[1:], strict=True))
    base = spare if empty else pointer + view.offset * row
    if empty:
        sizes = (max(dim, 1), 1, 1, 1, 1)
    return TensorMapArguments(layout.dtype, base, sizes, strides, (SPAN, box.inner, box.outer, 1, 1))


def encode(arguments: TensorMapArguments) -> NDArray[np.uint64]:
    """The 128 bytes of a tensor map, as 16 words."""
    cu = driver()
    types = cu.CUtensorMapDataType
    kind = {
        "bfloat16": types.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        "float16": types.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
    }[arguments.dtype]
    found = ask(
        cu.cuTensorMapEncodeTiled,
        kind,
        5,
        arguments.pointer,
        [cu.cuuint64_t(size) for size in arguments.sizes],
        [cu.cuuint64_t(step) for step in arguments.strides],
        [cu.cuuint32_t(size) for size in arguments.box],
        [cu.cuuint32_t(1)] * 5,
        cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        cu.CUtensorMapSwizzle.CU_TENSOR_MAP_SWIZZLE_128B,
        cu.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
    return np.array([int(word) for word in found.opaque], np.uint64)
