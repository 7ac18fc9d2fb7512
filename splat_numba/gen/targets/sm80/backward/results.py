"""An item's gradients, from registers to memory, beside what earlier launches stored there."""

from __future__ import annotations

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, LANE_ROWS, MATRIX, SUMS
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.addresses import emit_length
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.gpu.gradient_kernels import FINISHED, LEVEL_BYTES
from splat_numba.gen.targets.gpu.real_rows import emit_add_real_row, emit_real_row, sixteens
from splat_numba.gen.targets.gpu.results import QUARTER, emit_quarter, emit_rounded
from splat_numba.gen.targets.sm80.backward.pairs import of_pair
from splat_numba.gen.targets.sm80.backward.shape import atoms_of
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits

FLOAT = ITEMSIZE["float32"]


def emit_store(out: SourceWriter, traits: GradientTraits) -> None:
    """The entry's last statements. 0 x NaN is NaN: what a row without gradient summed up is put aside."""
    if traits.columns_are_queries:
        out.line("end = seq_left")
        if traits.ragged:
            emit_length(out, "end")
    for name in traits.written:
        out.line(f"{name}_at = {name} + u64(entry) * {name}_batch + u64(head) * {name}_head")
    if not traits.paired:
        _emit_rows(out, traits, tuple(traits.dims))
        return
    for number, name in enumerate(("dv", "dk")):
        with out.block(f"if {of_pair(number)}"):
            _emit_rows(out, traits, (name,))


def _emit_rows(out: SourceWriter, traits: GradientTraits, names: tuple[str, ...]) -> None:
    """Of gradients of these names; where warps are paired, their sums have one name."""
    for atom in range(atoms_of(traits)):
        for row in range(LANE_ROWS):
            place = ATOM * atom + MATRIX * row
            out.line(f"token = ptx.load_word(row_at + u64({4 * place}))")
            if not traits.columns_are_queries:
                at = f"base + LEVELS + u32({LEVEL_BYTES}) * u32(row + u32({place}))"
                out.line(f"level, _ = ptx.load_shared_reals2({at})")
            for name in names:
                counts = "token < end" if traits.columns_are_queries else "level < INFINITE"
                factor = "f32(1.0)" if name == "dv" else "scale"
                out.line(f"share = {factor} if {counts} else f32(0.0)")
                total = f"total_{atom}" if traits.paired else f"{name}_total_{atom}"
                sums = (f"{name}_sums_at", f"{name}_sums_row") if traits.stored == FINISHED else ()
                where = ("column", "share", f"{name}_at", f"{name}_row", *sums, "seq_left")
                wrapped(out, f"store_{name}", (str(row), "token", total, *where))


def emit_results(out: SourceWriter, traits: GradientTraits) -> None:
    """A function for each gradient, which stores a row of it."""
    for name, dim in traits.dims.items():
        sums = ("sums", "sums_step") if traits.stored == FINISHED else ()
        parameters = ("row", "token", "total", "column", "share", "to_first", "step", *sums, "seq_left")
        text = f"A row of {name}: its sums times share, 0 where share is."
        with device_function(out, f"store_{name}", parameters, text):
            if traits.boxes.dtype == "float32":
                _emit_reals(out, traits, dim)
            else:
                _emit_row(out, traits, dim)
    emit_share(out)
    if traits.boxes.dtype != "float32":
        _emit_eights(out, traits)
    if traits.rounds and max(traits.dims.values(), default=0) >= QUARTER and traits.boxes.dtype != "float32":
        emit_quarter(out, traits.boxes.dtype)


def _emit_row(out: SourceWriter, traits: GradientTraits, dim: int) -> None:
    """A call for each 8 columns: compilers for chips from 10.0 on do not unroll loops over them."""
    out.lines(
        """
        real = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
        to = to_first + u64(token) * step
        """
    )
    eights = range(-(-dim // MATRIX))
    for j in eights:
        out.line(f"share_eight({SUMS * j} + {LANE_COLUMNS} * row, total, share)")
    if traits.adds or not traits.rounds:
        first = "sums + u64(token) * sums_step" if traits.stored == FINISHED else "to"
        out.line(f"place = {first} + u64({FLOAT}) * u64(column)")
    for function in ("add_eight",) * traits.adds + ("store_eight",) * (not traits.rounds):
        for j in eights:
            out.line(f"{function}({SUMS * j} + {LANE_COLUMNS} * row, total, place + u64({FLOAT * MATRIX * j}), real)")
    if traits.rounds:
        out.line("share = f32(1.0)")
        emit_rounded(out, traits.boxes.dtype, dim)


def _emit_reals(out: SourceWriter, traits: GradientTraits, dim: int) -> None:
    """The same of float32, which is added up where it is stored; a row that is not there reads the first one."""
    out.lines(
        """
        real = u32(1) if token < seq_left else u32(0)  # padding is 2**32 - 1 here
        to = to_first + u64(token if real != u32(0) else u32(0)) * step
        """
    )
    for j in range(ATOM // MATRIX * len(sixteens(dim))):
        out.line(f"share_eight({SUMS * j} + {LANE_COLUMNS} * row, total, share)")
    if traits.adds:
        emit_add_real_row(out, dim)
    emit_real_row(out, dim, "total", "f32(1.0)")


def emit_share(out: SourceWriter) -> None:
    """``share_eight``."""
    with device_function(out, "share_eight", ("at", "total", "share"), "8 columns times share, 0 where share is."):
        for x in range(LANE_COLUMNS):
            out.line(f"total[at + {x}] = total[at + {x}] * share if share != f32(0.0) else f32(0.0)")


def _emit_eights(out: SourceWriter, traits: GradientTraits) -> None:
    """Of a thread's two of 8 columns; rows of sums are whole chunks of them."""
    if not traits.rounds:
        with device_function(out, "store_eight", ("at", "total", "to", "real"), "8 columns in float32."):
            out.line("ptx.store_reals2(to, total[at], total[at + 1], real)")
    if traits.adds:
        with device_function(out, "add_eight", ("at", "total", "first", "real"), "What is there already."):
            for x in range(LANE_COLUMNS):
                out.line(f"total[at + {x}] += ptx.load_real_when(first + u64({FLOAT * x}), real)")
