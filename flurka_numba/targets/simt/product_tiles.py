"""The tiles of a product on their way: from memory to registers, and from there to shared memory."""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.product_shape import DEPTH, ProductShape
from flurka_numba.targets.simt.text import emit_raw, emit_value
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_groups(out: KernelWriter, name: str, side: int, traits: ProductShape) -> None:
    """Which fours of a tile a thread fetches: lanes go along the axis on which numbers are adjacent in memory.

    ``first``, ``next``: of the rows of A or columns of B, from one four to the thread's next; ``deep``, ``deeper``: in
    the depth; ``offset``, ``hop``: in memory, likewise.
    """
    along, across, first = _axes(name)
    fours, threads = side // QUAD, traits.threads
    four = f"u32(thread // u32({DEPTH}) if {name}_along != u32(0) else thread % u32({fours}))"
    held = "float32" if (traits.a if name == "a" else traits.b) == "float32" else "uint32"
    with out.part(f"find_fours_of_{name}", "Which fours of a tile this thread fetches, and where they are in memory."):
        out.lines(
            f"""
            {name}_first = {four} * u32({QUAD})
            {name}_next = u32({QUAD * threads // DEPTH}) if {name}_along != u32(0) else u32(0)
            {name}_deep = u32(thread % u32({DEPTH}) if {name}_along != u32(0) else thread // u32({fours}))
            {name}_deeper = u32(0) if {name}_along != u32(0) else u32({threads // fours})
            {name}_offset = u64({first} + {name}_first) * {name}_{along} + u64({name}_deep) * {name}_{across}
            {name}_hop = u64({name}_next) * {name}_{along} + u64({name}_deeper) * {name}_{across}
            """
        )
    out.line(f"got_{name} = cuda.local.array({side * DEPTH // threads}, dtype=np.{held})")


def emit_fetch(out: KernelWriter, traits: ProductShape, name: str, dtype: str) -> None:
    """The next tile's numbers into registers, zeros for what is not there.

    Nothing is done with them here: it would wait for memory before the products of this tile.
    """
    along, across, _ = _axes(name)
    with out.part(f"fetch_{name}", "The next tile's numbers into registers, zeros for what is not there."):
        out.line(f"{name}_from = {name} + batch_entry * {name}_batch + batch_head * {name}_head")
        out.line(f"{name}_from = {name}_from + u64(from_depth) * {name}_{across} + {name}_offset")
        with out.block(f"for group in range({_groups(traits, name)})"):
            _emit_group(out, name)
            out.line(f"at = {name}_from + u64(group) * {name}_hop")
            for i in range(QUAD):
                out.line(f"here = u32(1) if u32(place + u32({i})) < end else u32(0)")
                emit_raw(
                    out, dtype, f"got_{name}[{QUAD} * group + {i}]", f"at + u64({i}) * {name}_{along}", "here", name
                )


def _axes(name: str) -> tuple[str, str, str]:
    """An operand's axis along a tile's side, the one along the depth, and where the tile begins on its side."""
    return ("row", "column", "first_row") if name == "a" else ("column", "row", "first_column")


def _groups(traits: ProductShape, name: str) -> int:
    """Fours that a thread fetches."""
    return (traits.rows if name == "a" else traits.columns) * DEPTH // (QUAD * traits.threads)


def _emit_group(out: KernelWriter, name: str) -> None:
    """Where the next four is, and where its side ends."""
    out.lines(
        f"""
        place = u32({_axes(name)[2]} + {name}_first + {name}_next * u32(group))
        deep = u32(from_depth + {name}_deep + {name}_deeper * u32(group))
        end = ptx.select({name}_end, u32(0), u32(1) if deep < {name}_deep_end else u32(0))
        """
    )


def emit_store_tile(out: KernelWriter, traits: ProductShape, name: str, dtype: str) -> None:
    """What was fetched as float32 into shared memory, and ones."""
    along, _, first = _axes(name)
    pitch = traits.a_pitch if name == "a" else traits.b_pitch
    with (
        out.part(f"store_{name}", "What was fetched as float32 into shared memory, and ones."),
        out.block(f"for group in range({_groups(traits, name)})"),
    ):
        _emit_group(out, name)
        if dtype != "float32":
            out.line(f"at = {name}_from + u64(group) * {name}_hop")
        if name == "a":
            out.line("one = ptx.select_real(f32(1.0), f32(0.0), u32(1) if deep == a_ones else u32(0))")
        for i in range(QUAD):
            if dtype != "float32":
                out.line(f"here = u32(1) if u32(place + u32({i})) < end else u32(0)")
            emit_value(
                out, dtype, f"x_{i}", f"got_{name}[{QUAD} * group + {i}]", f"at + u64({i}) * {name}_{along}", "here"
            )
            if name == "b":
                test = f"u32(1) if u32(place + u32({i})) == b_ones else u32(0)"
                out.line(f"one = ptx.select_real(f32(1.0), f32(0.0), {test})")
            out.line(f"x_{i} = x_{i} + one")
        out.line(f"to = {name}_tile + buffer + u32({pitch}) * u32(deep - from_depth) + u32(4) * u32(place - {first})")
        out.line("ptx.store_shared_reals4(to, x_0, x_1, x_2, x_3, u32(1))")
