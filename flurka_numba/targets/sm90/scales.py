"""Powers of two that keep what is rounded to float16 within its range, and are undone exactly.

float16 ends at 65504 and rounds numbers below 2^-14 more coarsely, 2^-24 being the least. A state is a sum over all
keys, so its image is multiplied with 2^-e, such that the largest of its features' sums z comes between 1/2 and 1. S
then is at most the largest value, as no |S| exceeds z times that, and out = phi(q) S / phi(q).z has the same bits as
without it. A state's gradient comes up to 2^15, and so do the features of a row or of some slots. bfloat16 has
float32's range, and its texts have none of this.

A state's image carries its own scale to whoever copies it: of the SUM_ROWS rows that repeat z a product's lanes read
the even ones. The one behind z's first is 2^-e in all of its words, as float32, and the one two further 2^e. Values
that are slots, F v, have a power of two of their head, too, with which results come multiplied: the row another two
further is its inverse.
"""

from __future__ import annotations

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.powers import BOTH
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES

HIGH = 2.0**15  # weights of rows beyond it are divided by it, and meet sums that are multiplied with it
SCALE_ROW, INVERSE_ROW, VALUE_ROW = 1, 3, 5  # of the SUM_ROWS
VALUE_TOP = 8  # values that are slots come up to 2^VALUE_TOP: with dout they make weights of rows, up to 2^31
LARGEST_REAL = 3.4e38
SLOT_SCALE_BYTES = 8  # of a head: what undoes its keys' scale and its values'
TOP = 15  # what is multiplied with a state comes up to 2^TOP, so that it may be small by 2^-29 beside its largest


def is_scaled(dtype: str) -> bool:
    """Whether numbers of this type need scales."""
    return dtype == "float16"


def has_row_scale(dtype: str, feature_map: FeatureMap) -> bool:
    """Whether gradients' texts scale features row by row: those of numbers in float16's range may leave it. elu and
    relu cannot, and their texts have few registers to spare.
    """
    return is_scaled(dtype) and feature_map.name not in ("elu", "relu")


def emit_carrier(out: SourceWriter, scale: str, row: str, values: str | None = None) -> None:
    """``carries``: whether a row of the sums, by its number, has the scale or its inverse in place of z, and which word
    that is: ``carried``. values: the word of the inverse of the values' scale, as text, where they have one.
    """
    out.lines(
        f"""
        carries = u32(1) if {row} == u32({SCALE_ROW}) or {row} == u32({INVERSE_ROW}) else u32(0)
        carried = u32({BOTH}) - {scale}_bits if {row} == u32({INVERSE_ROW}) else {scale}_bits
        carried = u32(carried << u32(16))  # a float32 begins as its bfloat16
        """
    )
    if values:
        out.line(f"of_value = u32(1) if {row} == u32({VALUE_ROW}) else u32(0)")
        out.line(f"carried = ptx.select({values}, carried, of_value)")
        out.line("carries = carries | of_value")


def inverse_word(scale: str) -> str:
    """The text of 1 / scale as a word of float32, of a ``scale`` that emit_scale() made."""
    return f"u32((u32({BOTH}) - {scale}_bits) << u32(16))"


def emit_carried(out: SourceWriter, name: str, image: str, values: int, row: int = SCALE_ROW) -> None:
    """``name``: what a row of the sums of the image at a shared address carries. values: rows before its sums."""
    at = (values + row) * SPAN_BYTES
    out.line(f"{name}, unused, unused, unused = ptx.load_shared_reals4({image} + u32({at}))")


def emit_finite_top(out: SourceWriter, top: str, number: str) -> None:
    """``top``: the larger of it and a number's magnitude. What is not finite stays so with any scale, and the others
    need theirs.
    """
    out.line(f"size = ptx.maximum({number}, -{number})")
    out.line(f"{top} = ptx.maximum({top}, size if size <= f32({LARGEST_REAL!r}) else f32(0.0))")


def emit_slot_factors(out: SourceWriter, *names: str) -> None:
    """``key_factor`` or ``value_factor``: what undoes the scale of the slots of head ``pair``; see collect.py."""
    for name in names:
        at = f"slot_scales + u64({SLOT_SCALE_BYTES}) * u64(pair) + u64({4 * (name == 'value_factor')})"
        out.line(f"{name} = ptx.load_state({at})")


def emit_weight(out: SourceWriter, name: str, weight: str, dtype: str) -> None:
    """``name``: a word with a row's weight, which is the low half; beyond HIGH its HIGHth part is the high half."""
    if not is_scaled(dtype):
        out.line(f"{name} = ptx.pack_{dtype}({weight}, f32(0.0))")
        return
    out.lines(
        f"""
        far = u32(1) if {weight} > f32({HIGH!r}) or {weight} < f32({-HIGH!r}) else u32(0)
        near = ptx.select_real(f32(0.0), {weight}, far)
        {name} = ptx.pack_{dtype}(near, ptx.select_real({weight} * f32({1.0 / HIGH!r}), f32(0.0), far))
        """
    )
