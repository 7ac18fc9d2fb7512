"""A warp's matrix products by the arrays' dtype: 16 bits as they are, float32 by TF32."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.dtypes import IEEE, ITEMSIZE, TF32
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.sm80 import tiles
from splat_numba.gen.targets.sm80.real_products import (
    emit_real_helpers,
    emit_real_row_product,
    emit_real_sum_product,
)
from splat_numba.gen.targets.sm80.tiles import RowProduct, SumProduct
from splat_numba.gen.targets.sm80.walk import PAIRED, TRANSPOSED


def in_reals(traits: Traits) -> bool:
    """Whether the arrays are of float32."""
    return ITEMSIZE[traits.dtype] == 4


def in_three(traits: Traits) -> bool:
    """Whether three products of TF32 make one of float32."""
    return in_reals(traits) and traits.precision == IEEE


def numbers_of(traits: Traits) -> str:
    """The arrays' dtype, or what stands for it in products, as names have it."""
    return TF32 if traits.precision == TF32 else traits.dtype


def described(traits: Traits) -> str:
    """The arrays' dtype and what products make of it, for people."""
    if not in_reals(traits):
        return traits.dtype
    return f"{traits.dtype} {'rounded to TF32' if traits.precision == TF32 else 'by three products of TF32'}"


def kind_of_columns(traits: Traits) -> str:
    """How a lane reads what weights are multiplied with."""
    return PAIRED if in_reals(traits) else TRANSPOSED


def emit_helpers(out: SourceWriter, traits: Traits) -> None:
    """What both products call."""
    if in_reals(traits):
        emit_real_helpers(out, traits.precision)
    else:
        tiles.emit_add(out, traits.dtype)


def emit_row_product(out: SourceWriter, one: RowProduct, traits: Traits) -> None:
    """Sums = rows x rows."""
    if in_reals(traits):
        emit_real_row_product(out, one, traits.precision)
    else:
        tiles.emit_row_product(out, one)


def emit_sum_product(out: SourceWriter, one: SumProduct, traits: Traits) -> None:
    """Sums += weights x columns."""
    if in_reals(traits):
        emit_real_sum_product(out, one, traits.precision)
    else:
        tiles.emit_sum_product(out, one, traits.dtype)
