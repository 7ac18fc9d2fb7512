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

from flurka_numba.targets.gpu.lanes import QUAD, quad_of
from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.product_results import emit_results
from flurka_numba.targets.simt.product_shape import COUNTS, DEPTH, ProductShape
from flurka_numba.targets.simt.product_tiles import emit_fetch, emit_groups, emit_store_tile
from flurka_numba.targets.simt.product_walk import (
    emit_advance,
    emit_find_depth,
    emit_find_operands,
    emit_find_tile,
    emit_no_sums,
)
from flurka_numba.targets.simt.text import (
    SHARED_ALIGNMENT,
    operand_parameters,
    result_parameters,
)
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter

ENTRY = "product"


@dataclass(frozen=True, slots=True)
class ProductTraits(ProductShape):
    """A product's text, by the dtypes and the tile of its shape."""

    @property
    def name(self) -> str:
        """Of the text."""
        return f"flurka_product_simt_{self.rows}x{self.columns}_{self.a}_{self.b}_{self.result}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called. A thread has 168 registers if it sums up 64 numbers, else 128."""
        resident = (384 if self.thread_rows * self.thread_columns == 64 else 512) // self.threads
        return Entry(ENTRY, parameters(), self.threads, resident, self.shared_bytes)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        return render_product(self)


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
        traits.entry,
        f"Matrix products of {traits.a} and {traits.b} as {traits.result}, {traits.rows} x {traits.columns} at a time.",
    )
    with out.suite():
        _emit_place(out, traits)
        emit_groups(out, "a", traits.rows, traits)
        emit_groups(out, "b", traits.columns, traits)
        with out.block("while step <= last"):
            with out.block("if step < last"):
                emit_find_operands(out, DEPTH)
                emit_fetch(out, traits, "a", traits.a)
                emit_fetch(out, traits, "b", traits.b)
            with out.block("if step > first"):
                out.line(f"before = u32(u32({traits.buffer_bytes}) - buffer)  # the other one")
                with out.part("multiply_tiles", "A thread's rows times its columns, two places of the depth at once."):
                    _emit_multiply(out, traits)
            with out.block("if step < last"):
                emit_store_tile(out, traits, "a", traits.a)
                emit_store_tile(out, traits, "b", traits.b)
                emit_advance(out)
            out.line("ptx.block_barrier()")
            out.line("step = u32(step + u32(1))")
            out.line(f"buffer = u32(u32({traits.buffer_bytes}) - buffer)")
        emit_results(out, traits)
    return out.text()


def _emit_place(out: KernelWriter, traits: ProductTraits) -> None:
    """Which tile and which steps of the depth are this block's."""
    columns_of_tile, sums = traits.columns // traits.thread_columns, traits.thread_rows * traits.thread_columns
    emit_shared_start(out, "a_tile", SHARED_ALIGNMENT)
    out.lines(
        f"""
        b_tile = u32(a_tile + u32({DEPTH * traits.a_pitch}))
        thread = ptx.thread_index()
        """
    )
    emit_find_tile(out, traits.rows, traits.columns)
    out.lines(
        f"""
        thread_row = u32((thread // u32({columns_of_tile})) * u32({QUAD}))
        thread_column = u32((thread % u32({columns_of_tile})) * u32({QUAD}))
        """
    )
    emit_find_depth(out)
    emit_no_sums(out, sums)


def _emit_multiply(out: KernelWriter, traits: ProductTraits) -> None:
    """The second place's numbers come while the first's are multiplied."""
    rows, columns = traits.thread_rows, traits.thread_columns
    out.line(f"of_a = cuda.local.array({2 * rows}, dtype=np.float32)")
    out.line(f"of_b = cuda.local.array({2 * columns}, dtype=np.float32)")
    with out.block(f"for two in range({DEPTH // 2})"):
        for name, pitch in (("a", traits.a_pitch), ("b", traits.b_pitch)):
            place = "thread_row" if name == "a" else "thread_column"
            out.line(f"at_{name} = u32({name}_tile + before + u32({2 * pitch}) * u32(two) + u32(4) * {place})")
        for number in (0, 1):
            with out.part("read_operands", "A place's numbers of A and B.", number=str(number)):
                _emit_operands(out, traits)
        for number in (0, 1):
            with (
                out.part("multiply_place", "All of a thread's products of it.", number=str(number)),
                out.block(f"for i in range({rows})"),
                out.block(f"for j in range({columns})"),
            ):
                out.line(f"total[{columns} * i + j] += of_a[{rows} * number + i] * of_b[{columns} * number + j]")


def _emit_operands(out: KernelWriter, traits: ProductTraits) -> None:
    """Of the first or the second of two places of the depth."""
    for name, pitch, hop, count in (
        ("a", traits.a_pitch, traits.row_hop, traits.thread_rows),
        ("b", traits.b_pitch, traits.column_hop, traits.thread_columns),
    ):
        out.line(f"from_{name} = at_{name} + u32({pitch}) * u32(number)")
        for first in range(0, count, QUAD):
            names = quad_of(f"of_{name}", first, f"{count} * number + ")
            out.line(f"{names} = ptx.load_shared_reals4(from_{name} + u32({first * hop}))")
