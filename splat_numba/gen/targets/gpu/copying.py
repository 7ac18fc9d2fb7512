"""Copies between arrays of any strides, odd, zero or negative ones too, as a kernel like any other.

What other kernels cannot read or write in place goes through padded rows by it; and what they read as numbers of one
type alone, such as key lengths, is converted on the way. Neighbouring threads have neighbouring numbers of a row.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.errors import PlanError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.schedule import EmittedText, ScheduleBuilder
from splat_numba.gen.schedules.tensor import Tensor, as_word
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped

ENTRY = "copy_elements"
THREADS = 128
TURNS = 4  # numbers of a thread, all read before the first is stored
AXES = ("batch", "head", "row", "column")
SIZES = ("heads", "seq", "dim", "rows")  # rows: of all heads and batch entries
PARAMETERS = (
    ("source", "l"), ("target", "l"), *((name, "r") for name in SIZES),
    *((f"{name}_{axis}", "l") for name in ("source", "target") for axis in AXES),
)  # fmt: skip
BYTES = {**ITEMSIZE, "int32": 4, "int64": 8}
CONVERSIONS = {
    ("float16", "float32"): ("real, _ = ptx.unpack_float16(low)", "low = ptx.real_bits(real)"),
    ("float64", "float32"): ("low = ptx.real_bits(f32(ptx.join_double(low, high)))",),
    ("int64", "int32"): ("low = nearest_word(low, high)",),
}
"""From the words of a number of the first type to ``low``, the word of one of the second."""


@dataclass(frozen=True, slots=True)
class CopyTraits:
    """Types by name; numbers that are not converted are bits, and so many bytes of them a type."""

    source: str
    target: str

    @classmethod
    def of(cls, source: str, target: str) -> CopyTraits:
        """Raises PlanError for types that no text converts."""
        if source == target:
            return cls(f"bits{8 * BYTES[source]}", f"bits{8 * BYTES[target]}")
        if (source, target) not in CONVERSIONS:
            known = ", ".join(f"{one} to {other}" for one, other in CONVERSIONS)
            raise PlanError(f"a copy wanted of one type, or {known}, got {source} to {target}. Convert it first.")
        return cls(source, target)


def _bytes(kind: str) -> int:
    return BYTES.get(kind) or int(kind.removeprefix("bits")) // 8


def copy_text(traits: CopyTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits."""
    name = f"copy_{arch}_{traits.source}_to_{traits.target}"
    return EmittedText(name, Entry(ENTRY, PARAMETERS, THREADS, 8, 0, arch=arch), render_copy, (traits,))


@dataclass(frozen=True, slots=True)
class Copying:
    """How schedules for a GPU copy. arch: that its texts are compiled for."""

    arch: str

    def __call__(self, builder: ScheduleBuilder, source: Tensor, target: Tensor) -> None:
        """Add the launch of target[...] = source[...], of which none is empty. Raises PlanError."""
        _, heads, seq, dim = source.sizes
        rows = source.sizes[0] * heads * seq
        if rows >> 32:
            raise PlanError(f"arrays that are copied wanted of fewer than 2**32 rows, got {rows}. Copy them before.")
        numbers: dict[str, int | float] = {"heads": heads, "seq": seq, "dim": dim, "rows": rows}
        arrays = {"source": source, "target": target}
        for name, one in arrays.items():
            numbers |= {f"{name}_{axis}": as_word(step) for axis, step in zip(AXES, one.strides, strict=True)}
        text = copy_text(CopyTraits.of(source.dtype, target.dtype), self.arch)
        builder.launch(text, -(-rows * dim // (THREADS * TURNS)), numbers, arrays)


def render_copy(traits: CopyTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out, quotes = SourceWriter(), '"' * 3
    out.lines(
        f"""
        {quotes}A copy between any strides, {traits.source} to {traits.target}; {TURNS} numbers a thread.{quotes}

        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        {DEVICE}
        """
    )
    _emit_places(out)
    if traits.target == "int32":
        _emit_nearest_word(out)
    _emit_load(out, traits)
    _emit_store(out, traits)
    _emit_entry(out, traits)
    return out.text()


def _emit_places(out: SourceWriter) -> None:
    text = "Row and column of a place, counted from the start of ``row``."
    with device_function(out, "row_of", ("place", "row", "dim", "rows"), text):
        out.lines(
            """
            below = u32(place // dim)
            row = u32(row + below)
            inside = u32(1) if row < rows else u32(0)
            return inside, row if inside != u32(0) else u32(0), u32(place - below * dim)
            """
        )
    parameters = ("start", "row", "column", "heads", "seq", *(f"to_{axis}" for axis in AXES))
    with device_function(out, "address_of", parameters, "The address of a number."):
        out.lines(
            """
            pair = u32(row // seq)
            token = u32(row - pair * seq)
            entry = u32(pair // heads)
            head = u32(pair - entry * heads)
            return start + u64(entry) * to_batch + u64(head) * to_head + u64(token) * to_row + u64(column) * to_column
            """
        )


def _emit_nearest_word(out: SourceWriter) -> None:
    text = "The nearest number of 32 bits with a sign to one of 64: lengths must not wrap into range."
    with device_function(out, "nearest_word", ("low", "high"), text):
        out.lines(
            f"""
            negative = u32(1) if high >= u32({1 << 31}) else u32(0)
            sign = u32(0) if negative == u32(0) else u32({(1 << 32) - 1})
            below = u32(1) if low < u32({1 << 31}) else u32(0)
            farthest = u32(u32({(1 << 31) - 1}) + negative)
            return low if high == sign and below != negative else farthest
            """
        )


def _emit_load(out: SourceWriter, traits: CopyTraits) -> None:
    """``load_number(at)``; of 16 bits the word that they are in: no instruction loads less."""
    nbytes = _bytes(traits.source)
    with device_function(out, "load_number", ("at",), f"The words of a number, {traits.source} as {traits.target}."):
        if nbytes == 2:
            out.line(f"low = u32(ptx.load_pair(at & u64({2**64 - 4})) >> u32(u32(at & u64(2)) << u32(3)))")
        else:
            out.line("low = ptx.load_pair(at)")
        if nbytes == 8:
            out.line("high = ptx.load_pair(at + u64(4))")
        for line in CONVERSIONS.get((traits.source, traits.target), ()):
            out.line(line)
        out.line(f"return {', '.join(_words(traits))}")


def _emit_store(out: SourceWriter, traits: CopyTraits) -> None:
    words, nbytes = _words(traits), _bytes(traits.target)
    with device_function(out, "store_number", ("to", *words, "inside"), "Store these words."):
        out.line(f"ptx.store_{'half' if nbytes == 2 else 'word'}(to, low, inside)")
        if len(words) > 1:
            out.line("ptx.store_word(to + u64(4), high, inside)")


def _words(traits: CopyTraits, turn: str = "") -> list[str]:
    """The names of what is stored of a number."""
    return [f"{word}{turn}" for word in ("low", "high")[: max(_bytes(traits.target) // 4, 1)]]


def _emit_entry(out: SourceWriter, traits: CopyTraits) -> None:
    out.line()
    out.line()
    wrapped(out, f"def {ENTRY}", [name for name, _ in PARAMETERS], end="):")
    with out.suite():
        out.lines(
            f"""
            first = u64(ptx.block_index()) * u64({THREADS * TURNS})
            row = u32(first // u64(dim))
            start = u32(u32(first - u64(row) * u64(dim)) + ptx.thread_index())
            """
        )
        for turn in range(TURNS):
            place = f"u32(start + u32({THREADS * turn}))" if turn else "start"
            out.line(f"inside_{turn}, row_{turn}, column_{turn} = row_of({place}, row, dim, rows)")
            out.line(f"at = {_address('source', turn)}")
            out.line(f"{', '.join(_words(traits, f'_{turn}'))} = load_number(at)")
        for turn in range(TURNS):
            out.line(f"to = {_address('target', turn)}")
            out.line(f"store_number(to, {', '.join(_words(traits, f'_{turn}'))}, inside_{turn})")


def _address(name: str, turn: int) -> str:
    strides = ", ".join(f"{name}_{axis}" for axis in AXES)
    return f"address_of({name}, row_{turn}, column_{turn}, heads, seq, {strides})"
