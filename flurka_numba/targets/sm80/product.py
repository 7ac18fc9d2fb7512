"""Products of matrices on tensor cores: result = scale * A B + addend for every batch entry and head.

As simt's (targets/simt/product.py), whose parameters, limits, shares and results these are, but for units and tiles:
a warp has sixteen rows of a tile and all its columns, and multiplies 16-bit pieces of the operands, summed in float32.
Tiles go through registers, where numbers are limited, taken through a feature map and cut into pieces. Lines of
operands are whole chunks of 16 bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.product_shape import COUNTS as SIMT_COUNTS
from flurka_numba.targets.simt.product_walk import (
    emit_advance,
    emit_find_depth,
    emit_find_operands,
    emit_find_tile,
    emit_no_sums,
)
from flurka_numba.targets.simt.text import result_parameters
from flurka_numba.targets.sm80.product_ends import End
from flurka_numba.targets.sm80.product_results import emit_results
from flurka_numba.targets.sm80.product_shape import ALIGNMENT, Operand, WarpProductShape
from flurka_numba.targets.sm80.product_tiles import emit_fetch, emit_got, emit_store_tile
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import ATOM, LEFT_WORDS, MATRIX, RIGHT_WORDS, WARP, sums_of
from splat_numba.gen.targets.gpu.functions import emit_shared_start, wrapped
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm80.tiles import emit_add

ENTRY = "product"
LINE_STRIDES = ("batch", "head", "line")
COUNTS = tuple(name for name in SIMT_COUNTS if name not in ("a_along", "b_along"))


@dataclass(frozen=True, slots=True)
class WarpProductTraits(WarpProductShape):
    """A product's text, by the dtypes and orders of its operands and the tile of its shape."""

    @property
    def name(self) -> str:
        """Of the text."""
        sides = (("t" if one.turned else "") + one.dtype + (f"_{one.feature_map.name}" if one.feature_map else "")
                 for one in self.operands)  # fmt: skip
        end = f"_{self.end.name}" if self.end else ""
        return f"flurka_product_sm80_{self.rows}x{self.columns}_{'_'.join(sides)}_{self.result}{end}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return Entry(ENTRY, parameters(self.end), self.threads, self.resident, self.shared_bytes)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        return render_product(self)


def parameters(end: End | None) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each. end: of the product."""
    return (
        *((one, "l") for name in ("a", "b") for one in (name, *(f"{name}_{axis}" for axis in LINE_STRIDES))),
        *result_parameters("result", "addend"),
        *(end.parameters if end else ()),
        ("parts", "l"),
        ("kv_lengths", "l"),
        *((name, "r") for name in COUNTS),
        ("scale", "f"),
    )


def render_product(traits: WarpProductTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    a, b = traits.operands
    out = start_text(
        traits.entry,
        f"Matrix products of {a.dtype} and {b.dtype} as {traits.result}, {traits.rows} x {traits.columns} at a time.",
        f"By mma.sync, in {a.pieces} and {b.pieces} pieces of {traits.kind}.",
    )
    with out.suite():
        _emit_place(out, traits)
        with out.block("while step <= last"):
            with out.block("if step < last"):
                emit_find_operands(out, traits.depth)
                emit_fetch(out, traits, a)
                emit_fetch(out, traits, b)
            with out.block("if step > first"):
                out.line(f"before = u32(u32({traits.buffer_bytes}) - buffer)  # the other one")
                for at in range(0, traits.depth, ATOM):
                    _emit_multiply(out, traits, at)
            with out.block("if step < last"):
                emit_store_tile(out, traits, a)
                emit_store_tile(out, traits, b)
                emit_advance(out)
            out.line("ptx.block_barrier()")
            out.line("step = u32(step + u32(1))")
            out.line(f"buffer = u32(u32({traits.buffer_bytes}) - buffer)")
        emit_results(out, traits)
    return out.text()


def _emit_place(out: KernelWriter, traits: WarpProductTraits) -> None:
    """Which tile and which steps are this block's, and where a lane's first matrices of both operands begin."""
    a, b = traits.operands
    emit_shared_start(out, "a_tile", ALIGNMENT)
    out.lines(
        f"""
        b_tile = u32(a_tile + u32({a.pieces * a.piece_bytes}))
        thread = ptx.thread_index()
        lane, warp = u32(thread & u32({WARP - 1})), u32(thread // u32({WARP}))
        warp_row, warp_column = u32(u32({ATOM}) * warp), u32(0)
        """
    )
    emit_find_tile(out, traits.rows, traits.columns)
    emit_find_depth(out)
    emit_no_sums(out, traits.sums)
    for one in traits.operands:
        emit_got(out, traits, one)
    with out.part("find_matrices", "Where the first matrices that a lane reads of A and B have their row."):
        row, half = f"u32(lane & u32({MATRIX - 1}))", f"u32(u32(lane >> u32(3)) & u32(1)) * u32({MATRIX})"
        far = f"u32(lane >> u32(4)) * u32({MATRIX})"
        # Matrices of A in the order (rows, depth) = (0, 0), (8, 0), (0, 8), (8, 8); of B (depth, columns) likewise.
        a_row, a_deep = f"u32({row} + {half})", f"u32({far})"
        out.line(f"a_side = u32(warp_row + {a_row})" if not a.turned else f"a_side = u32(warp_row + {half})")
        if a.turned:
            out.line(f"a_lane = u32(a_tile + u32({a.pitch}) * u32({row} + {far}) + u32(2) * a_side)")
        else:
            out.line(f"a_lane = u32(a_tile + u32({a.pitch}) * a_side + u32(2) * {a_deep})")
        if b.turned:
            out.line(f"b_lane = u32(b_tile + u32({b.pitch}) * u32({row} + {far}) + u32(2) * u32({half}))")
        else:
            out.line(f"b_lane = u32(b_tile + u32({b.pitch}) * u32({row} + {half}) + u32(2) * u32({far}))")


def _emit_multiply(out: KernelWriter, traits: WarpProductTraits, at: int) -> None:
    """Sixteen numbers of the depth: all products of pieces whose errors would be seen."""
    a, b = traits.operands
    given = {"a_now": _deeper(a, at, "a_lane"), "b_now": _deeper(b, at, "b_lane")}
    with out.part("multiply_step", "Sixteen places of the depth: a warp's rows times all columns.", **given):
        for piece in range(a.pieces):
            words, load = [f"a{piece}_{i}" for i in range(LEFT_WORDS)], load_matrices(straight=not a.turned)
            out.line(f"{', '.join(words)} = {load}(u32(a_now + u32({piece * a.piece_bytes})))")
        for sixteen in range(traits.columns // ATOM):
            hop = ATOM * sixteen * (b.pitch if b.turned else 2)
            for piece in range(b.pieces):
                words = [f"b{piece}_{i}" for i in range(2 * RIGHT_WORDS)]
                load = load_matrices(straight=b.turned)
                out.line(f"{', '.join(words)} = {load}(u32(b_now + u32({hop + piece * b.piece_bytes})))")
            for left, right in pairs_of_pieces(a, b):
                for eight in (0, 1):
                    names = [f"a{left}_{i}" for i in range(LEFT_WORDS)]
                    names += [f"b{right}_{RIGHT_WORDS * eight + i}" for i in range(RIGHT_WORDS)]
                    wrapped(out, "add_product", ("total", str(sums_of(ATOM * sixteen + MATRIX * eight)), *names))
    out.needs("add_product", partial(emit_add, dtype=traits.kind))


def pairs_of_pieces(a: Operand, b: Operand) -> list[tuple[int, int]]:
    """Which pieces meet: not two rests, whose product is below what the pieces leave out. Small ones come first."""
    found = [(i, j) for i in range(a.pieces) for j in range(b.pieces) if i + j < 2]
    return sorted(found, key=sum, reverse=True)


def _deeper(operand: Operand, at: int, lane: str) -> str:
    """Where a lane's matrices are so many places of the depth further on."""
    lines_are_deep = operand.turned if operand.name == "a" else not operand.turned
    return f"u32(before + {lane} + u32({at * (operand.pitch if lines_are_deep else 2)}))"


def load_matrices(*, straight: bool) -> str:
    """straight: lines are the fragment's rows (of B: columns), as they stand in memory."""
    return "ptx.load_matrices" if straight else "ptx.load_matrices_transposed"
