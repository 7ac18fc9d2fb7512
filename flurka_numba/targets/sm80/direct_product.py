"""Products of matrices of one 16-bit type on tensor cores, from memory to shared memory by copies in the background.

As product.py's, whose parameters, limits, shares and results these are. Nothing is done with numbers on their way, so
they need no registers: while one tile is multiplied, the next ones are fetched. A chunk of which a part is missing is
rare, and stored by its thread.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from flurka_numba.targets.gpu_text import start_text
from flurka_numba.targets.simt.product_walk import (
    emit_advance,
    emit_find_depth,
    emit_find_operands,
    emit_find_tile,
    emit_no_sums,
)
from flurka_numba.targets.sm80.direct_shape import DirectProductShape
from flurka_numba.targets.sm80.direct_tiles import emit_copy
from flurka_numba.targets.sm80.product import ENTRY, load_matrices, parameters
from flurka_numba.targets.sm80.product_results import emit_results
from flurka_numba.targets.sm80.product_shape import ALIGNMENT
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import ATOM, LEFT_WORDS, MATRIX, RIGHT_WORDS, WARP, sums_of
from splat_numba.gen.targets.gpu.functions import emit_shared_start, wrapped
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm80.tiles import emit_add


@dataclass(frozen=True, slots=True)
class DirectProductTraits(DirectProductShape):
    """A product's text, by its types, the orders of its operands and the tile of its shape."""

    @property
    def name(self) -> str:
        """Of the text."""
        sides = "_".join(("t" if one.turned else "") + one.dtype for one in self.operands)
        return f"flurka_direct_product_sm80_{self.rows}x{self.columns}x{self.stages}_{sides}_{self.result}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return Entry(ENTRY, parameters(None), self.threads, self.resident, self.shared_bytes)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        return render_direct_product(self)


def render_direct_product(traits: DirectProductTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    out = start_text(
        traits.entry,
        f"Matrix products of {traits.dtype} as {traits.result}, {traits.rows} x {traits.columns} at a time.",
        f"By mma.sync, {ATOM * traits.atoms} x {traits.warp_columns} a warp; {traits.stages} tiles in shared memory.",
        {"wait_for_copies": f"async_wait({traits.stages - 2})"},
    )
    ahead = traits.stages - 1  # how many steps before it is multiplied a tile is fetched
    with out.suite():
        _emit_place(out, traits)
        out.line(f"begin = u32(first + u32({ahead}))")
        out.line(f"end = u32(last + u32({ahead}))")
        out.line("before = u32(0)  # the tile that is multiplied")
        with out.block("while step < end"):
            with out.block("if step >= begin"):
                out.line("wait_for_copies()")
                out.line("ptx.block_barrier()  # and everyone has read what is fetched over now")
            with out.block("if step < last"):
                emit_find_operands(out, traits.depth)
                for one in traits.operands:
                    emit_copy(out, traits, one)
                emit_advance(out)
            out.line("ptx.async_commit()")
            with out.block("if step >= begin"):
                for at in range(0, traits.depth, ATOM):
                    _emit_multiply(out, traits, at)
                out.line(_next(traits, "before"))
            out.line(_next(traits, "buffer"))
            out.line("step = u32(step + u32(1))")
        emit_results(out, traits)
    return out.text()


def _next(traits: DirectProductTraits, name: str) -> str:
    """To the next of the stages, in a ring."""
    size = traits.buffer_bytes
    return f"{name} = u32({name} + u32({size})) if {name} < u32({(traits.stages - 1) * size}) else u32(0)"


def _emit_place(out: KernelWriter, traits: DirectProductTraits) -> None:
    """Which tile and which steps are this block's, and where a lane's first matrices of both operands begin."""
    a, b = traits.operands
    emit_shared_start(out, "a_tile", ALIGNMENT)
    across = traits.warps[1]
    out.lines(
        f"""
        b_tile = u32(a_tile + u32({a.piece_bytes}))
        thread = ptx.thread_index()
        lane, warp = u32(thread & u32({WARP - 1})), u32(thread // u32({WARP}))
        warp_row = u32(u32({ATOM * traits.atoms}) * u32(warp // u32({across})))
        warp_column = u32(u32({traits.warp_columns}) * u32(warp % u32({across})))
        """
    )
    emit_find_tile(out, traits.rows, traits.columns)
    emit_find_depth(out)
    emit_no_sums(out, traits.sums)
    with out.part("find_matrices", "Where the first matrices that a lane reads of A and B have their row."):
        # Matrices of A in the order (rows, depth) = (0, 0), (8, 0), (0, 8), (8, 8); of B (depth, columns) likewise.
        out.lines(
            f"""
            row = u32(lane & u32({MATRIX - 1}))
            half = u32(u32(lane >> u32(3)) & u32(1)) * u32({MATRIX})
            far = u32(lane >> u32(4)) * u32({MATRIX})
            """
        )
        lines, along = ("row + far", "half") if a.turned else ("row + half", "far")
        lines, along = (lines, f"warp_row + {along}") if a.turned else (f"warp_row + {lines}", along)
        out.line(f"a_lane = u32(a_tile + u32({a.pitch}) * u32({lines}) + u32(2) * u32({along}))")
        lines, along = ("warp_column + row + far", "half") if b.turned else ("row + half", "warp_column + far")
        out.line(f"b_lane = u32(b_tile + u32({b.pitch}) * u32({lines}) + u32(2) * u32({along}))")


def _emit_multiply(out: KernelWriter, traits: DirectProductTraits, at: int) -> None:
    """Sixteen numbers of the depth."""
    a, b = traits.operands
    given = {
        "a_now": f"u32(before + a_lane + u32({at * (a.pitch if a.turned else 2)}))",
        "b_now": f"u32(before + b_lane + u32({at * (2 if b.turned else b.pitch)}))",
    }
    of_atom = sums_of(traits.warp_columns)
    with out.part("multiply_step", "Sixteen places of the depth: a warp's rows times its columns.", **given):
        for atom in range(traits.atoms):
            words = [f"a{atom}_{i}" for i in range(LEFT_WORDS)]
            hop = ATOM * atom * (2 if a.turned else a.pitch)
            out.line(f"{', '.join(words)} = {load_matrices(straight=not a.turned)}(u32(a_now + u32({hop})))")
        for sixteen in range(traits.warp_columns // ATOM):
            hop = ATOM * sixteen * (b.pitch if b.turned else 2)
            words = [f"b{i}" for i in range(2 * RIGHT_WORDS)]
            out.line(f"{', '.join(words)} = {load_matrices(straight=b.turned)}(u32(b_now + u32({hop})))")
            for atom in range(traits.atoms):
                for eight in (0, 1):
                    place = of_atom * atom + sums_of(ATOM * sixteen + MATRIX * eight)
                    names = [f"a{atom}_{i}" for i in range(LEFT_WORDS)]
                    names += [f"b{RIGHT_WORDS * eight + i}" for i in range(RIGHT_WORDS)]
                    wrapped(out, "add_product", ("total", str(place), *names))
    out.needs("add_product", partial(emit_add, dtype=traits.kind))
