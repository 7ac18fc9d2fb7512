"""Products of many rows with a small float32 matrix on tensor cores: result = scale * A B for every entry and head.

As product.py's, whose parameters, limits and ends these are, but that a block has B in shared memory once, in pieces,
and a warp goes from sixteen rows of A to the next: nobody waits for anybody.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu.lanes import OCTET, QUAD, QUAD_BYTES, quad_of
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.product_walk import emit_find_operands, emit_no_sums
from flurka_numba.targets.sm80.product import ENTRY, load_matrices, pairs_of_pieces, parameters
from flurka_numba.targets.sm80.product_results import emit_lane, emit_tile
from flurka_numba.targets.sm80.product_shape import ALIGNMENT, Operand
from flurka_numba.targets.sm80.product_tiles import (
    WORDS,
    emit_chunk,
    emit_count,
    emit_fetch,
    emit_got,
    emit_piece_words,
    emit_pieces_of,
)
from flurka_numba.targets.sm80.rows_shape import CHUNKS, RowsProductShape
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import (
    ATOM,
    LANE_COLUMNS,
    LANE_ROWS,
    LEFT_WORDS,
    MATRIX,
    RIGHT_WORDS,
    ROW_LANES,
    WARP,
    sums_of,
)
from splat_numba.gen.targets.gpu.functions import emit_shared_start, wrapped
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm80.tiles import emit_add


@dataclass(frozen=True, slots=True)
class RowsProductTraits(RowsProductShape):
    """A product's text, by the dtypes of its operands and B's size."""

    @property
    def name(self) -> str:
        """Of the text."""
        a, b = self.operands
        of_map = f"_{a.feature_map.name}" if a.feature_map else ""
        of_b = ("t" if b.turned else "") + b.dtype
        end = f"_{self.end.name}" if self.end else ""
        return f"flurka_rows_product_sm80_{self.depth}x{self.columns}_{a.dtype}{of_map}_{of_b}_{self.result}{end}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return Entry(ENTRY, parameters(self.end), self.threads, self.resident, self.shared_bytes)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        return render_rows_product(self)


def render_rows_product(traits: RowsProductTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    a, b = traits.operands
    out = start_text(
        traits.entry,
        f"Products of {a.dtype} rows with a {b.dtype} matrix, {traits.depth} x {traits.columns}, as {traits.result}.",
        f"By mma.sync, in {a.pieces} and {b.pieces} pieces of {traits.kind}.",
    )
    with out.suite():
        _emit_place(out, traits)
        _emit_keep(out, traits, b)
        emit_lane(out)
        emit_no_sums(out, traits.sums)
        held = "float32" if a.dtype == "float32" else "uint32"
        out.line(f"got_a = cuda.local.array({traits.words}, dtype=np.{held})")
        with out.block("while first_row < end_row"):
            _emit_fetch_rows(out, traits, a)
            for at in range(0, traits.depth, CHUNKS):
                _emit_multiply(out, traits, at)
            emit_tile(out, traits)
            out.line(f"first_row = u32(first_row + u32({traits.rows}))")
            with out.block(f"for i in range({traits.sums})"):
                out.line("total[i] = f32(0.0)")
    return out.text()


def _emit_place(out: KernelWriter, traits: RowsProductTraits) -> None:
    """Which head and which rows are this block's; steps_of_share: its tiles."""
    emit_shared_start(out, "b_tile", ALIGNMENT)
    out.lines(
        f"""
        thread = ptx.thread_index()
        lane, warp = u32(thread & u32({WARP - 1})), u32(thread // u32({WARP}))
        warp_row, warp_column = u32(u32({ATOM}) * warp), u32(0)
        block = ptx.block_index()
        pair = u32(block // row_blocks)
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        first_column, depth_block, outer_entry, outer_head = u32(0), u32(0), u32(0), u32(0)
        first_row = u32(u32(block - pair * row_blocks) * u32(steps_of_share * u32({traits.rows})))
        end_row = u32(min(rows, u32(first_row + u32(steps_of_share * u32({traits.rows})))))
        """
    )
    emit_find_operands(out, traits.depth)


def _emit_keep(out: KernelWriter, traits: RowsProductTraits, b: Operand) -> None:
    """B into shared memory, in pieces, its places of the depth where fragments want them."""
    emit_got(out, traits, b)
    emit_fetch(out, traits, b)
    out.needs("pieces_of", emit_pieces_of)
    with (
        out.part("keep_b", "B into shared memory, in pieces, its places of the depth where a row's lanes have them."),
        out.block(f"for group in range({traits.groups(b)})"),
    ):
        emit_chunk(out, traits, b)
        out.line(f"mine = u32(1) if line < u32({b.lines}) else u32(0)")
        if b.turned:  # eight neighbours are a lane's
            far = f"u32(u32(place & u32({CHUNKS - OCTET})) // u32({OCTET // LANE_COLUMNS}))"
            out.line(
                f"to = u32(b_tile + u32({b.pitch}) * line + u32(2) * u32(u32(place & u32({2**32 - CHUNKS})) + {far}))"
            )
        else:
            out.line(f"to = u32(b_tile + u32({b.pitch}) * {_exchanged('line')} + u32(2) * place)")
        emit_piece_words(out, b)
        for piece, word in enumerate(("word", "rest")):
            place = f"to + u32({piece * b.piece_bytes}"
            if b.turned:
                for i in range(WORDS):
                    out.line(f"ptx.store_shared_word(u32({place} + {2 * MATRIX * i})), {word}_{i}, mine)")
            else:
                words = ", ".join(f"{word}_{i}" for i in range(WORDS))
                out.line(f"ptx.store_shared_words4(u32({place})), {words}, mine)")
    out.line("ptx.block_barrier()")
    with out.part("find_matrices", "Where the first matrices that a lane reads of B have their row."):
        row, half = f"u32(lane & u32({MATRIX - 1}))", f"u32(u32(lane >> u32(3)) & u32(1)) * u32({MATRIX})"
        far = f"u32(lane >> u32(4)) * u32({MATRIX})"
        line, along = (f"{row} + {far}", half) if b.turned else (f"{row} + {half}", far)
        out.line(f"b_lane = u32(b_tile + u32({b.pitch}) * u32({line}) + u32(2) * u32({along}))")


def _exchanged(line: str) -> str:
    """Where a place of the depth stands: 8 t + 4 s + 2 h + x at 16 s + 8 h + 2 t + x, of t a lane of a row."""
    moved = [f"u32({line} & u32({2**32 - CHUNKS}))", f"u32({line} & u32(1))", f"u32(u32({line} & u32(4)) << u32(2))",
             f"u32(u32({line} & u32(2)) << u32(2))", f"u32(u32({line} & u32(24)) >> u32(2))"]  # fmt: skip
    return f"u32({' + '.join(moved)})"


def _emit_fetch_rows(out: KernelWriter, traits: RowsProductTraits, a: Operand) -> None:
    """A lane's eight places of each of its two rows, of every step of the depth."""
    size, words = ITEMSIZE[a.dtype], a.words
    with out.part("fetch_rows", "A lane's places of its two rows."):
        out.line("a_from = a + batch_entry * a_batch + batch_head * a_head")
        out.line(f"lane_place = u32(u32(lane & u32({ROW_LANES - 1})) * u32({OCTET}))")
        for row in range(LANE_ROWS):
            out.line(f"row = u32(first_row + warp_row + u32(lane // u32({ROW_LANES})) + u32({MATRIX * row}))")
            out.line("a_row = a_from + u64(row) * a_line")
            for step in range(traits.depth // CHUNKS):
                out.line(f"place = u32(lane_place + u32({CHUNKS * step}))")
                out.line("count = count_in_chunk(row, a_end, place, a_deep_end)")
                out.line(f"at = a_row + u64({size}) * u64(place)")
                first = words * (LANE_ROWS * step + row)
                if size == 2:
                    out.line("when = u32(1) if count != u32(0) else u32(0)")
                    out.line(f"{quad_of('got_a', first)} = ptx.load_words4_when(at, when)")
                    continue
                for half in range(words // QUAD):
                    out.line(f"there = at + u64({QUAD_BYTES * half}) if count > u32({QUAD * half}) else a")
                    out.line(f"{quad_of('got_a', first + QUAD * half)} = ptx.load_reals4(there)")
    out.needs("count_in_chunk", emit_count)


def _emit_multiply(out: KernelWriter, traits: RowsProductTraits, at: int) -> None:
    """One step of the depth: two products for each eight columns and pair of pieces."""
    a, b = traits.operands
    given = {"at_depth": f"u32({at})", "got": str(a.words * LANE_ROWS * (at // CHUNKS)),
             "b_now": f"u32(b_lane + u32({at * (2 if b.turned else b.pitch)}))"}  # fmt: skip
    with out.part("multiply_rows", "A lane's places of two rows, in pieces, times all columns.", **given):
        out.line(f"place = u32(at_depth + u32(u32(lane & u32({ROW_LANES - 1})) * u32({OCTET})))")
        for row in range(LANE_ROWS):
            with out.part(f"fragments_of_row_{row}", "A row's eight numbers as words of two fragments, in pieces."):
                _emit_fragments(out, a, row)
        for half in range(CHUNKS // ATOM):
            words = {f"a{i}_{j}": f"a{i}_{half}_{j}" for i in range(a.pieces) for j in range(LEFT_WORDS)}
            deep = ATOM * half * (2 if b.turned else b.pitch)
            text = "Sixteen places of the depth: a warp's rows times all columns."
            with out.part("multiply_half", text, b_here=f"u32(b_now + u32({deep}))", **words):
                _emit_half(out, traits)
    out.needs("add_product", partial(emit_add, dtype=traits.kind))


def _emit_half(out: KernelWriter, traits: RowsProductTraits) -> None:
    a, b = traits.operands
    for sixteen in range(traits.columns // ATOM):
        hop = ATOM * sixteen * (b.pitch if b.turned else 2)
        for piece in range(b.pieces):
            words = [f"b{piece}_{i}" for i in range(2 * RIGHT_WORDS)]
            load = load_matrices(straight=b.turned)
            out.line(f"{', '.join(words)} = {load}(u32(b_here + u32({hop + piece * b.piece_bytes})))")
        for left, right in pairs_of_pieces(a, b):
            for eight in (0, 1):
                names = [f"a{left}_{i}" for i in range(LEFT_WORDS)]
                names += [f"b{right}_{RIGHT_WORDS * eight + i}" for i in range(RIGHT_WORDS)]
                wrapped(out, "add_product", ("total", str(sums_of(ATOM * sixteen + MATRIX * eight)), *names))


def _emit_fragments(out: KernelWriter, a: Operand, row: int) -> None:
    """One row's eight numbers as words of two fragments, a<piece>_<half>_<word>."""
    out.line(f"row = u32(first_row + warp_row + u32(lane // u32({ROW_LANES})) + u32({MATRIX * row}))")
    out.line("count = count_in_chunk(row, a_end, place, a_deep_end)")
    if a.ones:
        out.line("one = u32(a_ones - place)")
    for word in range(WORDS):
        half, far = divmod(word, 2)
        to = LANE_ROWS * far + row
        place = f"got + {a.words * row}"
        if a.dtype == "float32":
            names = [f"got_a[{place} + {2 * word + x}]" for x in (0, 1)]
        else:
            out.line(f"x_0, x_1 = ptx.unpack_{a.dtype}(got_a[{place} + {word}])")
            names = ["x_0", "x_1"]
        for x, value in enumerate(names):
            if a.feature_map is not None:
                out.line(f"x = {value}")
            text = gpu_text(a.feature_map.source, "x") if a.feature_map else value
            out.line(f"y_{x} = ptx.select_real({text}, f32(0.0), u32(1) if count > u32({2 * word + x}) else u32(0))")
            if a.ones:
                is_one = f"u32(1) if one == u32({2 * word + x}) else u32(0)"
                out.line(f"y_{x} = ptx.select_real(f32(1.0), y_{x}, {is_one})")
        if a.pieces == 1:
            out.line(f"a0_{half}_{to} = ptx.pack_{a.kind}(y_0, y_1)")
        else:
            out.line(f"a0_{half}_{to}, a1_{half}_{to} = pieces_of(y_0, y_1)")
