"""What all texts of this target have: numbers of any dtype at any strides, read one by one, and rows written in fours.

A text is run by traits: a name, an entry and render(). Strides are in bytes. What is written has rows whose starts are
multiples of 16 bytes and whose numbers are adjacent, and may be padded up to the next four numbers.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD_BYTES
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.parts import KernelWriter

OPERAND_STRIDES = ("batch", "head", "row", "column")
RESULT_STRIDES = ("batch", "head", "row")
SHARED_ALIGNMENT = QUAD_BYTES


def operand_parameters(*names: str) -> tuple[tuple[str, str], ...]:
    """(name, kind) of matrices that are read number by number."""
    return _with_strides(names, OPERAND_STRIDES)


def result_parameters(*names: str) -> tuple[tuple[str, str], ...]:
    """(name, kind) of matrices with adjacent numbers in a row."""
    return _with_strides(names, RESULT_STRIDES)


def _with_strides(names: tuple[str, ...], axes: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((one, "l") for name in names for one in (name, *(f"{name}_{axis}" for axis in axes)))


def emit_length_here(out: KernelWriter, entry: str) -> None:
    """``length``: how many rows or columns of this launch are within the entry's key length, or more than it has."""
    emit_length(out, "length", entry=entry)
    out.line("length = u32(length - limit_first) if length > limit_first else u32(0)")


def emit_element(out: KernelWriter, dtype: str, name: str, at: str, kept: str, spare: str) -> None:
    """``name``, the number at an address, as float32; 0 where ``kept`` is 0. spare: an address that may be read."""
    raw = name if dtype == "float32" else "pair_of_numbers"
    emit_raw(out, dtype, raw, at, kept, spare)
    emit_value(out, dtype, name, raw, at, kept)


def emit_raw(out: KernelWriter, dtype: str, name: str, at: str, kept: str, spare: str) -> None:
    """What there is in memory. 16-bit numbers are read in pairs, because there is no instruction for less."""
    if dtype == "float32":
        out.line(f"{name} = ptx.load_real_when({at}, {kept})")
        return
    out.line(f"source = {at} if {kept} != u32(0) else {spare}")
    out.line(f"{name} = ptx.load_pair(source - (source & u64(2)))")


def emit_value(out: KernelWriter, dtype: str, name: str, raw: str, at: str, kept: str) -> None:
    """The number, from what emit_raw() read."""
    if dtype == "float32":
        if name != raw:
            out.line(f"{name} = {raw}")
        return
    out.line(f"low, high = ptx.unpack_{dtype}({raw})")
    out.line(f"{name} = ptx.select_real(high, low, u32(({at}) & u64(2)))")
    out.line(f"{name} = ptx.select_real({name}, f32(0.0), {kept})")


def emit_four(out: KernelWriter, dtype: str, to: str, values: list[str], when: str) -> None:
    """Store four adjacent numbers."""
    if dtype == "float32":
        out.line(f"ptx.store_reals4({to}, {', '.join(values)}, {when})")
        return
    for half in (0, 1):
        word = f"ptx.pack_{dtype}({values[2 * half]}, {values[2 * half + 1]})"
        out.line(f"ptx.store_word({to} + u64({4 * half}), {word}, {when})")
