"""The head of a CPU kernel's text, and what entry functions begin with."""

from __future__ import annotations

from flurka_numba.targets.cpu.plan import CpuPlan
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter

FUNCTION = '@njit(nogil=True, error_model="numpy")'


def emit_head(out: SourceWriter, plan: CpuPlan) -> None:
    """Docstring, imports, and the names ``real``, WIDTH and those of the vector functions."""
    name = (
        plan.feature_map if isinstance(plan.feature_map, str) else f"{plan.feature_map.name}: {plan.feature_map.source}"
    )
    quotes = '"' * 3
    wants = ", ".join(plan.wants) if plan.wants == ("out",) else f"gradients of {', '.join(plan.wants)}"
    out.lines(
        f"""
        {quotes}{plan.method} attention, {plan.dtype}, features {name}; {wants}; any sizes; target cpu.

        Entry functions take ranges first .. last - 1 of their work items, which are independent of each other. Arrays
        that are not the caller's are contiguous, their last two axes padded to multiples of {plan.unit}.
        {quotes}

        import math

        import numpy as np
        from numba import njit

        from flurka_numba.cpu.intrinsics import exponent, load_tile, square_root
        from splat_numba.runtime.halves import from_bfloat16, from_float16, to_bfloat16, to_float16
        from splat_numba.runtime.lanes import reader, reductions
        from splat_numba.runtime.simd import address, advance, assign, element
        from splat_numba.runtime.tiles import multiply_add, store_tile
        from splat_numba.runtime.vectors import floor, fma, maximum, power_of_two, select, shaped, store

        real = np.{plan.compute_dtype}
        WIDTH = {plan.width}  # numbers in one vector
        load, splat, inside, bits = shaped("{plan.compute_dtype}", WIDTH)
        add_lanes, largest_lane, add_each = reductions("{plan.compute_dtype}", WIDTH)
        """
    )


def emit_strides(out: SourceWriter, dtype: str, *names: str, axes: int = 4) -> None:
    """``<name>_at``: strides, in elements, of arrays of the dtype."""
    for name in names:
        strides = ", ".join(f"{name}.strides[{axis}] // {ITEMSIZE[dtype]}" for axis in range(axes))
        out.line(f"{name}_at = ({strides})")


def emit_scratch(out: SourceWriter, **tiles: str) -> None:
    """Pointers to tiles of these sizes in one zeroed array: pads that nobody writes stay 0."""
    for name, size in tiles.items():
        out.line(f"{name}_size = {size}")
    out.line(f"scratch = np.zeros({' + '.join(f'{name}_size' for name in tiles)}, real)")
    place = "address(scratch, 0)"
    for name in tiles:
        out.line(f"{name} = {place}")
        place = f"advance({name}, {name}_size)"


def emit_keep(out: SourceWriter) -> None:
    """The end of an entry function."""
    out.line("return scratch.size  # the pointers above are good until here")


def place(array: str, *indices: str) -> str:
    """Text of a pointer to array[indices] of a caller's array; "0" for an axis at its beginning."""
    steps = [f"{index} * {array}_at[{axis}]" for axis, index in enumerate(indices) if index != "0"]
    return f"address({array}, {' + '.join(steps)})"


def item_block(array: str, *sizes: str) -> str:
    """Text of a pointer to block number ``item`` of a contiguous array, of these sizes."""
    return f"address({array}, item * {' * '.join(sizes)})"


def head_block(array: str, *sizes: str) -> str:
    """Text of a pointer to the block of (batch, head) in a contiguous array, of these sizes."""
    return f"address({array}, (batch * heads + head) * {' * '.join(sizes)})"
