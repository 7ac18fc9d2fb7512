"""Products of matrices: result = scale * A B + addend for every batch entry and head, in float32 on the FMA units.

A block makes a tile of a result, or its share of the depth for one. Tiles of A and B go through registers into shared
memory, A turned so that four neighbouring rows are adjacent; the next are fetched while these are multiplied, and go to
the other of two buffers, so that one barrier a step does. The depth may go over batch entries and heads as well
("outer"), which sums gradients of what they share.

limited: 0: no limit; else what is beyond an entry's key length counts as 0, whatever is there: 1: rows of the result;
2: the depth; 3: columns of B. a_ones, b_ones: the place in the depth of A, or the column of B, that is all ones instead
of what is in memory: a sum beside a product.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.simt.text import (
    ITEMSIZE,
    SHARED_ALIGNMENT,
    emit_four,
    emit_length,
    emit_raw,
    emit_value,
    operand_parameters,
    result_parameters,
    start_text,
)
from splat_numba.gen.entry import Entry
from splat_numba.gen.writer import SourceWriter

ENTRY = "product"
DEPTH = 16  # that is multiplied at once
BUFFERS = 2
LIMITS = {None: 0, "rows": 1, "depth": 2, "columns": 3}
NONE = 2**32 - 1  # no place for ones
COUNTS = (
    "heads", "outer_heads", "rows", "columns", "depth", "depth_blocks", "steps", "shares", "steps_of_share",
    "row_blocks", "column_blocks", "part_row", "limited", "limit_first", "a_ones", "b_ones", "a_along", "b_along",
)  # fmt: skip
PAD = 4  # numbers behind a row of a tile, so that neighbouring rows are in other banks


@dataclass(frozen=True, slots=True)
class ProductTraits:
    """a, b, result: dtypes. A tile of rows x columns, of which a thread has thread_rows x thread_columns, in fours."""

    a: str
    b: str
    result: str
    rows: int
    columns: int
    thread_rows: int
    thread_columns: int

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_product_simt_{self.rows}x{self.columns}_{self.a}_{self.b}_{self.result}"

    @property
    def threads(self) -> int:
        """Of a block."""
        return self.rows * self.columns // (self.thread_rows * self.thread_columns)

    @property
    def entry(self) -> Entry:
        """How the kernel is called. A thread has 168 registers if it sums up 64 numbers, else 128."""
        resident = (384 if self.thread_rows * self.thread_columns == 64 else 512) // self.threads
        return Entry(ENTRY, parameters(), self.threads, resident, self.shared_bytes)

    @property
    def a_pitch(self) -> int:
        """Bytes of a row of A's tile, which holds one place of the depth."""
        return 4 * (self.rows + PAD)

    @property
    def b_pitch(self) -> int:
        """Bytes of a row of B's tile."""
        return 4 * (self.columns + PAD)

    @property
    def shared_bytes(self) -> int:
        """Two buffers."""
        return BUFFERS * self.buffer_bytes + SHARED_ALIGNMENT

    @property
    def buffer_bytes(self) -> int:
        """A tile of each."""
        return DEPTH * (self.a_pitch + self.b_pitch)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        return render_product(self)


LARGE = (128, 64, 8, 8)
MEDIUM = (64, 64, 8, 4)
SMALL = (32, 32, 4, 4)


def parameters() -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    return (
        *operand_parameters("a", "b"),
        *result_parameters("result", "addend"),
        ("parts", "l"),
        ("kv_lengths", "l"),
        *((name, "r") for name in COUNTS),
        ("scale", "f"),
    )


def render_product(traits: ProductTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out = start_text(
        f"Matrix products of {traits.a} and {traits.b} as {traits.result}, {traits.rows} x {traits.columns} at a time.",
        traits.entry,
    )
    with out.suite():
        _emit_place(out, traits)
        _emit_groups(out, "a", traits.rows, traits)
        _emit_groups(out, "b", traits.columns, traits)
        with out.block("while step <= last"):
            with out.block("if step < last"):
                _emit_step(out)
                _emit_fetch(out, traits, "a", traits.a)
                _emit_fetch(out, traits, "b", traits.b)
            with out.block("if step > first"):
                _emit_multiply(out, traits)
            with out.block("if step < last"):
                _emit_store_tile(out, traits, "a", traits.a)
                _emit_store_tile(out, traits, "b", traits.b)
                _emit_advance(out)
            out.line("ptx.block_barrier()")
            out.line("step = u32(step + u32(1))")
            out.line(f"buffer = u32(u32({traits.buffer_bytes}) - buffer)")
        _emit_results(out, traits)
    return out.text()


def _emit_place(out: SourceWriter, traits: ProductTraits) -> None:
    """Which tile and which steps of the depth are this block's."""
    columns_of_tile, sums = traits.columns // traits.thread_columns, traits.thread_rows * traits.thread_columns
    out.lines(
        f"""
        start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
        a_tile = u32((start + u32({SHARED_ALIGNMENT - 1})) & u32({2**32 - SHARED_ALIGNMENT}))
        b_tile = u32(a_tile + u32({DEPTH * traits.a_pitch}))
        thread = ptx.thread_index()
        block = ptx.block_index()
        tile = u32(block // shares)
        share = u32(block - tile * shares)
        tiles_of_pair = u32(row_blocks * column_blocks)
        pair = u32(tile // tiles_of_pair)
        rest = u32(tile - pair * tiles_of_pair)
        row_block = u32(rest // column_blocks)
        first_row = u32(row_block * u32({traits.rows}))
        first_column = u32((rest - row_block * column_blocks) * u32({traits.columns}))
        entry = u32(pair // heads)
        head = u32(pair - entry * heads)
        thread_row = u32((thread // u32({columns_of_tile})) * u32(4))
        thread_column = u32((thread % u32({columns_of_tile})) * u32(4))
        first = u32(min(share * steps_of_share, steps))
        last = u32(min(first + steps_of_share, steps))
        step = first
        buffer = u32(0)
        outer = u32(first // u32(max(depth_blocks, u32(1))))
        depth_block = u32(first - outer * depth_blocks)
        outer_entry = u32(outer // outer_heads)
        outer_head = u32(outer - outer_entry * outer_heads)
        total = cuda.local.array({sums}, dtype=np.float32)
        for i in range({sums}):
            total[i] = f32(0.0)
        """
    )


def _emit_groups(out: SourceWriter, name: str, side: int, traits: ProductTraits) -> None:
    """Which fours of a tile a thread fetches: lanes go along the axis on which numbers are adjacent in memory.

    ``first``, ``next``: of the rows of A or columns of B, from one four to the thread's next; ``deep``, ``deeper``: in
    the depth; ``offset``, ``hop``: in memory, likewise.
    """
    along, across, first = _axes(name)
    fours, threads = side // 4, traits.threads
    held = "float32" if (traits.a if name == "a" else traits.b) == "float32" else "uint32"
    out.lines(
        f"""
        {name}_first = u32(thread // u32({DEPTH}) if {name}_along != u32(0) else thread % u32({fours})) * u32(4)
        {name}_next = u32({4 * threads // DEPTH}) if {name}_along != u32(0) else u32(0)
        {name}_deep = u32(thread % u32({DEPTH}) if {name}_along != u32(0) else thread // u32({fours}))
        {name}_deeper = u32(0) if {name}_along != u32(0) else u32({threads // fours})
        {name}_offset = u64({first} + {name}_first) * {name}_{along} + u64({name}_deep) * {name}_{across}
        {name}_hop = u64({name}_next) * {name}_{along} + u64({name}_deeper) * {name}_{across}
        got_{name} = cuda.local.array({side * DEPTH // threads}, dtype=np.{held})
        """
    )


def _emit_step(out: SourceWriter) -> None:
    """Where this step's tiles are, and how much of them is there."""
    out.lines(
        f"""
        from_depth = u32(depth_block * u32({DEPTH}))
        batch_entry = u64(u32(entry + outer_entry))
        batch_head = u64(u32(head + outer_head))
        a_end = rows
        b_end = columns
        depth_end = depth
        """
    )
    with out.block("if kv_lengths != u64(0)"):
        emit_length(out, "batch_entry")
        out.lines(
            f"""
            a_end = u32(min(rows, length)) if limited == u32({LIMITS["rows"]}) else rows
            depth_end = u32(min(depth, length)) if limited == u32({LIMITS["depth"]}) else depth
            b_end = u32(min(columns, length)) if limited == u32({LIMITS["columns"]}) else columns
            """
        )
    out.lines(
        """
        a_deep_end = u32(min(depth_end, a_ones))
        b_deep_end = depth_end
        b_end = u32(min(b_end, b_ones))
        """
    )


def _emit_advance(out: SourceWriter) -> None:
    """To the next step: along the depth, then over heads, then over batch entries."""
    out.lines(
        """
        depth_block = u32(depth_block + u32(1))
        outer_head = u32(outer_head + u32(1)) if depth_block == depth_blocks else outer_head
        depth_block = u32(0) if depth_block == depth_blocks else depth_block
        outer_entry = u32(outer_entry + u32(1)) if outer_head == outer_heads else outer_entry
        outer_head = u32(0) if outer_head == outer_heads else outer_head
        """
    )


def _emit_fetch(out: SourceWriter, traits: ProductTraits, name: str, dtype: str) -> None:
    """The next tile's numbers into registers, zeros for what is not there.

    Nothing is done with them here: it would wait for memory before the products of this tile.
    """
    along, across, _ = _axes(name)
    out.line(f"{name}_from = {name} + batch_entry * {name}_batch + batch_head * {name}_head")
    out.line(f"{name}_from = {name}_from + u64(from_depth) * {name}_{across} + {name}_offset")
    with out.block(f"for group in range({_groups(traits, name)})"):
        _emit_group(out, name)
        out.line(f"at = {name}_from + u64(group) * {name}_hop")
        for i in range(4):
            out.line(f"here = u32(1) if u32(place + u32({i})) < end else u32(0)")
            emit_raw(out, dtype, f"got_{name}[4 * group + {i}]", f"at + u64({i}) * {name}_{along}", "here", name)


def _axes(name: str) -> tuple[str, str, str]:
    """An operand's axis along a tile's side, the one along the depth, and where the tile begins on its side."""
    return ("row", "column", "first_row") if name == "a" else ("column", "row", "first_column")


def _groups(traits: ProductTraits, name: str) -> int:
    """Fours that a thread fetches."""
    return (traits.rows if name == "a" else traits.columns) * DEPTH // (4 * traits.threads)


def _emit_group(out: SourceWriter, name: str) -> None:
    """Where the next four is, and where its side ends."""
    out.lines(
        f"""
        place = u32({_axes(name)[2]} + {name}_first + {name}_next * u32(group))
        deep = u32(from_depth + {name}_deep + {name}_deeper * u32(group))
        end = ptx.select({name}_end, u32(0), u32(1) if deep < {name}_deep_end else u32(0))
        """
    )


def _emit_store_tile(out: SourceWriter, traits: ProductTraits, name: str, dtype: str) -> None:
    """What was fetched as float32 into shared memory, and ones."""
    along, _, first = _axes(name)
    pitch = traits.a_pitch if name == "a" else traits.b_pitch
    with out.block(f"for group in range({_groups(traits, name)})"):
        _emit_group(out, name)
        if dtype != "float32":
            out.line(f"at = {name}_from + u64(group) * {name}_hop")
        if name == "a":
            out.line("one = ptx.select_real(f32(1.0), f32(0.0), u32(1) if deep == a_ones else u32(0))")
        for i in range(4):
            if dtype != "float32":
                out.line(f"here = u32(1) if u32(place + u32({i})) < end else u32(0)")
            emit_value(out, dtype, f"x_{i}", f"got_{name}[4 * group + {i}]", f"at + u64({i}) * {name}_{along}", "here")
            if name == "b":
                test = f"u32(1) if u32(place + u32({i})) == b_ones else u32(0)"
                out.line(f"one = ptx.select_real(f32(1.0), f32(0.0), {test})")
            out.line(f"x_{i} = x_{i} + one")
        out.line(f"to = {name}_tile + buffer + u32({pitch}) * u32(deep - from_depth) + u32(4) * u32(place - {first})")
        out.line("ptx.store_shared_reals4(to, x_0, x_1, x_2, x_3, u32(1))")


def _emit_multiply(out: SourceWriter, traits: ProductTraits) -> None:
    """A thread's rows times its columns, two places of the depth at once: the second's numbers come meanwhile."""
    out.line(f"before = u32(u32({traits.buffer_bytes}) - buffer)  # the other one")
    with out.block(f"for two in range({DEPTH // 2})"):
        for name, pitch in (("a", traits.a_pitch), ("b", traits.b_pitch)):
            place = "thread_row" if name == "a" else "thread_column"
            out.line(f"at_{name} = u32({name}_tile + before + u32({2 * pitch}) * u32(two) + u32(4) * {place})")
        for number in (0, 1):
            _emit_operands(out, traits, number)
        for number in (0, 1):
            for i in range(traits.thread_rows):
                for j in range(traits.thread_columns):
                    out.line(f"total[{traits.thread_columns * i + j}] += a_{number}_{i} * b_{number}_{j}")


def _emit_operands(out: SourceWriter, traits: ProductTraits, number: int) -> None:
    """Of one of two places of the depth."""
    for name, pitch, side, count in (
        ("a", traits.a_pitch, traits.rows, traits.thread_rows),
        ("b", traits.b_pitch, traits.columns, traits.thread_columns),
    ):
        for four in range(count // 4):
            names = ", ".join(f"{name}_{number}_{4 * four + i}" for i in range(4))
            apart = number * pitch + 4 * four * _apart(side, count)
            out.line(f"{names} = ptx.load_shared_reals4(at_{name} + u32({apart}))")


def _apart(side: int, count: int) -> int:
    """Rows or columns from one of a thread's fours to the next: so that lanes read what is adjacent."""
    return side // (count // 4)


def _emit_results(out: SourceWriter, traits: ProductTraits) -> None:
    """The tile, or this block's share of it as it is."""
    with out.block("if shares > u32(1)"):
        out.line("pairs = u64(ptx.grid_size() // (shares * tiles_of_pair))")
        out.line("part = parts + (u64(share) * pairs + u64(pair)) * u64(rows) * u64(part_row)")
        for four in range(traits.thread_columns // 4):
            _emit_columns(out, traits, four)
            with out.block(f"for i in range({traits.thread_rows})"):
                _emit_row(out, traits)
                out.line("at = part + u64(row) * u64(part_row) + u64(4) * u64(column)")
                out.line(f"ptx.store_reals4(at, {', '.join(_totals(traits, four))}, when)")
    with out.block("if shares == u32(1)"):
        emit_result_start(out)
        out.line("from_result = result + u64(entry) * result_batch + u64(head) * result_head")
        out.line("from_addend = addend + u64(entry) * addend_batch + u64(head) * addend_head")
        for four in range(traits.thread_columns // 4):
            _emit_columns(out, traits, four)
            with out.block(f"for i in range({traits.thread_rows})"):
                _emit_row(out, traits)
                emit_finished_four(out, traits.result, _totals(traits, four))


def _totals(traits: ProductTraits, four: int) -> list[str]:
    return [f"total[{traits.thread_columns} * i + {4 * four + j}]" for j in range(4)]


def _emit_columns(out: SourceWriter, traits: ProductTraits, four: int) -> None:
    """One of a thread's fours of columns."""
    apart = four * _apart(traits.columns, traits.thread_columns)
    out.lines(
        f"""
        column = u32(first_column + thread_column + u32({apart}))
        in_columns = u32(1) if column < columns else u32(0)
        rows_end = ptx.select(rows, u32(0), in_columns)
        """
    )


def _emit_row(out: SourceWriter, traits: ProductTraits) -> None:
    """Loops have a row for i, four at a time."""
    apart = _apart(traits.rows, traits.thread_rows)
    out.line(f"row = u32(first_row + thread_row + u32(i // 4) * u32({apart}) + u32(i % 4))")
    out.line("when = u32(1) if row < rows_end else u32(0)")


def emit_result_start(out: SourceWriter) -> None:
    """``kept_end``: rows of the result from there on are 0."""
    out.line("kept_end = rows")
    with out.block("if kv_lengths != u64(0)"):
        emit_length(out, "entry")
        out.line(f"kept_end = length if limited == u32({LIMITS['rows']}) else rows")


def emit_finished_four(out: SourceWriter, dtype: str, totals: list[str]) -> None:
    """Four sums of products scaled, added onto what is there, limited and stored at ``row`` and ``column``."""
    for j, total in enumerate(totals):
        out.line(f"c_{j} = {total} * scale")
    with out.block("if addend != u64(0)"):
        out.line("at = from_addend + u64(row) * addend_row + u64(4) * u64(column)")
        out.line("at = at if when != u32(0) else addend")
        out.line("d_0, d_1, d_2, d_3 = ptx.load_reals4(at)")
        for j in range(4):
            out.line(f"c_{j} += d_{j}")
    out.line("kept = u32(1) if row < kept_end else u32(0)")
    for j in range(4):
        out.line(f"c_{j} = ptx.select_real(c_{j}, f32(0.0), kept)")
    out.line(f"to = from_result + u64(row) * result_row + u64({ITEMSIZE[dtype]}) * u64(column)")
    emit_four(out, dtype, "to", [f"c_{j}" for j in range(4)], "when")
