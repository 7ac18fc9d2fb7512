"""Gradients of tokens, dk = E^T dk' and dv = F^T dv', for everybody's columns: one launch for both.

A block makes one tile after the other, 256 tokens by two spans of columns. The projection's columns for its tokens stay
in shared memory from tile to tile, as the next one has the same tokens but where a block goes on to others: what is
fetched again and again is the slots' gradients alone. A warp, in a warpgroup that gives its registers away, fetches;
warpgroups of 64 tokens each multiply. Columns of the slots' gradients are spread, see rows.py, so that each lane ends
with eight adjacent ones: exchanges between lanes were 160 instructions a tile more.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.gpu_text import emit_shared_start, parameters_of, start_text
from flurka_numba.targets.sm90.ring import emit_advance, emit_rings
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import BARRIERS_BYTES
from splat_numba.gen.entry import Entry
from splat_numba.gen.machine import WARP
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    GROUP,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    STEP_OF_ROWS,
    WARPGROUP,
    spans,
    values_descriptor,
)
from splat_numba.gen.tensor_map import SPAN

MAPS = ("proj_k_map", "dk_spread_map", "proj_v_map", "dv_spread_map")
OUTPUTS = ("dk", "dv")
COUNTS = ("items_k", "items", "items_of_block", "batch", "heads", "seq_kv")
ENTRY = "token_gradients"
GROUPS = 4  # warpgroups
TOKENS = 64 * GROUPS
STEP = 64  # slots
LARGEST_STEPS = 4  # more slots do not fit beside what is fetched ahead
TILE_SPANS = 2
STAGES = 4
REGISTERS = 32, 112  # a thread of the warpgroup that fetches, and of the others: together no more than 96 of each,
# with which the block begins, or who asks for more waits for ever; with 96 some would be spilled
PIECE_BYTES = TOKENS * STEP * 2  # of the projection, for a step of slots
STAGE_BYTES = TILE_SPANS * STEP * SPAN_BYTES


@dataclass(frozen=True, slots=True)
class TokenTraits:
    """head_dim, value_dim: elements; steps: of 64 slots. In float16 their gradients have a scale, see
    gradient_scales.py.
    """

    head_dim: int
    value_dim: int
    dtype: str
    steps: int

    @property
    def shared_bytes(self) -> int:
        """A projection's columns, stages, and two barriers for each."""
        pieces = self.steps * (PIECE_BYTES + BARRIERS_BYTES)
        return pieces + STAGES * (STAGE_BYTES + BARRIERS_BYTES) + ALIGNMENT


def pairs_of_spans(heads: int, dim: int) -> int:
    """Tiles that make up all columns."""
    return -(-heads * spans(dim) // TILE_SPANS)


def token_parameters(traits: TokenTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of each."""
    scales = ("gradient_scales",) if is_scaled(traits.dtype) else ()
    strides = (f"{name}_{axis}" for name in OUTPUTS for axis in ("row", "head", "batch"))
    return parameters_of((*MAPS, *OUTPUTS, *scales), COUNTS, strides)


def token_entry(traits: TokenTraits) -> Entry:
    """How the kernel is called."""
    return Entry(ENTRY, token_parameters(traits), WARPGROUP * (GROUPS + 1), 1, traits.shared_bytes)


def render_token_gradients(traits: TokenTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    options = f'"{traits.dtype}", from_registers=False, transposed=True, a_transposed=True'
    out = start_text(
        token_entry(traits),
        f"Gradients of tokens from those of up to {STEP * traits.steps} slots, {traits.dtype}.",
        f"head_dim {traits.head_dim}, value_dim {traits.value_dim}; {TOKENS} tokens x {TILE_SPANS * SPAN} columns a "
        "tile.",
        {
            "product": f"matrix_product({TILE_SPANS * SPAN}, {options})",
            "fewer_registers": f"release_registers({REGISTERS[0]})",
            "more_registers": f"claim_registers({REGISTERS[1]})",
        },
    )
    with out.suite():
        _emit_start(out, traits)
        with out.block(f"if thread >= u32({WARPGROUP * GROUPS})"):
            out.line("fewer_registers()")
            with (
                out.block(f"if thread < u32({WARPGROUP * GROUPS + WARP})"),
                out.part("produce", "The warp that fetches; what one lane alone may do is predicated by ``leader``."),
            ):
                _emit_producer(out, traits)
        with out.block("else"):
            out.line("more_registers()")
            with out.part("consume", "A warpgroup: 64 tokens of each tile."):
                _emit_consumer(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: TokenTraits) -> None:
    """Places, barriers of stages and of the projection's pieces, and which tiles this block makes."""
    pieces = traits.steps * PIECE_BYTES
    stages = pieces + STAGES * STAGE_BYTES
    emit_shared_start(out, "piece_place", ALIGNMENT)
    out.lines(
        f"""
        slot_place = u32(piece_place + u32({pieces}))
        full = u32(piece_place + u32({stages}))
        empty = u32(full + u32({8 * STAGES}))
        piece_full = u32(empty + u32({8 * STAGES}))
        piece_empty = u32(piece_full + u32({8 * traits.steps}))
        """
    )
    emit_rings(out, {"": STAGES, "piece_": traits.steps}, 4 * GROUPS)
    out.lines(
        f"""
        pairs_k = u32((heads * u32({spans(traits.head_dim)}) + u32({TILE_SPANS - 1})) // u32({TILE_SPANS}))
        pairs_v = u32((heads * u32({spans(traits.value_dim)}) + u32({TILE_SPANS - 1})) // u32({TILE_SPANS}))
        item = u32(ptx.block_index() * items_of_block)
        last = u32(min(item + items_of_block, items))
        """
    )


def _emit_place(out: KernelWriter, traits: TokenTraits) -> None:
    """What a tile is of, and which of ``of_tokens`` that have the same tokens: ``rest``."""
    with out.part("find_tile", "What a tile is of, and which of ``of_tokens`` that have the same tokens: ``rest``."):
        out.lines(
            f"""
            of_values = u32(1) if item >= items_k else u32(0)
            rest = u32(item - items_k * of_values)
            pairs = ptx.select(pairs_v, pairs_k, of_values)
            of_tokens = u32(batch * pairs)
            token_tile = u32(rest // of_tokens)
            rest = u32(rest - token_tile * of_tokens)
            entry = u32(rest // pairs)
            first_span = u32((rest - entry * pairs) * u32({TILE_SPANS}))
            spans = ptx.select(u32({spans(traits.value_dim)}), u32({spans(traits.head_dim)}), of_values)
            """
        )


def _emit_producer(out: KernelWriter, traits: TokenTraits) -> None:
    """One warp; what only one lane may do is predicated by ``leader``."""
    out.lines(
        """
        stage = u32(0)
        free = u32(1)  # parities of the phases in which stages and pieces were given back; fresh barriers count as such
        piece_free = u32(1)
        begins = u32(1)
        """
    )
    with out.block("while item < last"):
        _emit_place(out, traits)
        with out.block("if rest == u32(0)"):
            out.line("begins = u32(1)")
        out.lines(
            """
            slot_map = dv_spread_map if of_values else dk_spread_map
            proj_map = proj_v_map if of_values else proj_k_map
            """
        )
        with out.block("if begins != u32(0)"):
            out.line("ptx.fence_tensor_map(slot_map)")
            out.line("ptx.fence_tensor_map(proj_map)")
        for step in range(traits.steps):
            with out.block("if begins != u32(0)"):
                _emit_piece(out, step)
            _emit_slots(out, step)
            emit_advance(out, "stage", "free", STAGES)
        out.line("piece_free = u32(piece_free ^ begins)")
        out.line("begins = u32(0)")
        out.line("item = u32(item + u32(1))")


def _emit_piece(out: KernelWriter, step: int) -> None:
    """The projection's columns for this tile's tokens, a step of its slots."""
    with out.part("load_piece", "The projection's columns for a tile's tokens, a step of its slots.", step=str(step)):
        out.lines(
            f"""
            ptx.mbarrier_wait(piece_empty + u32(8) * u32(step), piece_free)
            barrier = piece_full + u32(8) * u32(step)
            ptx.mbarrier_expect(barrier, u32({PIECE_BYTES}), leader)
            slot = u32({STEP}) * u32(step)
            for group in range({GROUPS}):
                token = token_tile * u32({TOKENS}) + u32({GROUP}) * u32(group)
                to = piece_place + u32({PIECE_BYTES}) * u32(step) + u32({STEP * SPAN_BYTES}) * u32(group)
                ptx.tensor_copy(to, proj_map, barrier, token, slot, u32(0), u32(0), u32(0), leader)
            """
        )


def _emit_slots(out: KernelWriter, step: int) -> None:
    """The slots' gradients in this tile's columns. What lies outside an array arrives as 0."""
    with out.part("load_slots", "A step of the slots' gradients in a tile's columns.", step=str(step)):
        out.lines(
            f"""
            ptx.mbarrier_wait(empty + stage * u32(8), free)
            barrier = u32(full + stage * u32(8))
            ptx.mbarrier_expect(barrier, u32({STAGE_BYTES}), leader)
            for i in range({TILE_SPANS}):
                span = u32(first_span + u32(i))
                head = u32(span // spans)
                column = u32((span - head * spans) * u32({SPAN}))
                to = u32(slot_place + stage * u32({STAGE_BYTES}) + u32({STEP * SPAN_BYTES}) * u32(i))
                ptx.tensor_copy(to, slot_map, barrier, column, u32({STEP}) * u32(step), u32(0), head, entry, leader)
            """
        )


def _emit_consumer(out: KernelWriter, traits: TokenTraits) -> None:
    """64 tokens of each tile; a stage, and a piece after its last tile, is given back when the next products have been
    issued.
    """
    out.lines(
        f"""
        warpgroup = u32(thread >> u32(7))
        total = cuda.local.array({TILE_SPANS * SPAN // 2}, dtype=np.float32)
        stage = u32(0)
        phase = u32(0)
        piece_phase = u32(1)
        begins = u32(1)
        before = u32(0)
        for i in range({TILE_SPANS * SPAN // 2}):
            total[i] = f32(0.0)
        """
    )
    with out.block("while item < last"):
        _emit_place(out, traits)
        with out.block("if rest == u32(0)"):
            out.line("begins = u32(1)")
        out.line("piece_phase = u32(piece_phase ^ begins)")
        out.line("begins = u32(0)")
        out.line("ends = leader if rest + u32(1) == of_tokens else u32(0)")
        for step in range(traits.steps):
            _emit_step(out, step)
            emit_advance(out, "stage", "phase", STAGES)
        out.line("ptx.wgmma_wait_all()")
        _emit_give_back(out, traits.steps - 1)
        with out.part("store_tile", "Rounded and stored, 16 bytes a lane."):
            _emit_results(out, traits)
        out.line("item = u32(item + u32(1))")


def _emit_step(out: KernelWriter, step: int) -> None:
    """Issue a step's products, which are the first of the tile or not; give back what the one before has read."""
    more = "u32(1)" if step else "u32(0)"
    with out.part("multiply_step", "Issue the products of a step, when it is full.", step=str(step), more=more):
        out.lines(
            f"""
            ptx.mbarrier_wait(piece_full + u32(8) * u32(step), piece_phase)
            ptx.mbarrier_wait(full + stage * u32(8), phase)
            piece = piece_place + u32({PIECE_BYTES}) * u32(step) + warpgroup * u32({STEP * SPAN_BYTES})
            proj = u64({values_descriptor(STEP)}) | u64(piece >> u32(4))
            slots = u64({values_descriptor(STEP)}) | u64((slot_place + stage * u32({STAGE_BYTES})) >> u32(4))
            ptx.wgmma_fence()
            """
        )
        for k in range(STEP // PRODUCT_DEPTH):
            at = STEP_OF_ROWS * k
            out.line(f"product(total, proj + u64({at}), slots + u64({at}), {'u32(1)' if k else 'more'})")
        out.line("ptx.wgmma_commit()")
    if step:
        out.line("ptx.wgmma_wait_but_one()")
        _emit_give_back(out, step - 1)
    out.line("before = stage")


def _emit_give_back(out: KernelWriter, step: int) -> None:
    out.line("ptx.mbarrier_arrive(empty + before * u32(8), leader)")
    out.line(f"ptx.mbarrier_arrive(piece_empty + u32({8 * step}), ends)")


def _emit_results(out: KernelWriter, traits: TokenTraits) -> None:
    """Rounded and stored, 16 bytes a lane."""
    for name, part in (("target", ""), ("row_bytes", "_row"), ("head_bytes", "_head"), ("batch_bytes", "_batch")):
        out.line(f"{name} = dv{part} if of_values else dk{part}")
    undone = ""
    if is_scaled(traits.dtype):
        undone = " * factor"
        out.line("factor = ptx.load_state(gradient_scales + u64(4) * u64(of_values))")
    out.line(f"dim = ptx.select(u32({traits.value_dim}), u32({traits.head_dim}), of_values)")
    for i in range(TILE_SPANS):
        with out.part("store_span", "64 columns of a head.", number=str(i)):
            out.lines(
                f"""
                span = u32(first_span + u32(number))
                head = u32(span // spans)
                column = u32((span - head * spans) * u32({SPAN}) + u32(8) * (lane & u32(3)))
                width = dim if head < heads else u32(0)
                head_at = target + u64(entry) * batch_bytes + u64(head) * head_bytes + u64(2) * u64(column)
                """
            )
            for row in (0, 1):
                _emit_row(out, traits, row, undone)


def _emit_row(out: KernelWriter, traits: TokenTraits, row: int, undone: str) -> None:
    """A token's columns of a span. undone: what its numbers are multiplied with, as text."""
    with out.part("store_row", "A token's columns of them.", row=str(row)):
        within = "u32(thread >> u32(5)) * u32(16) + (lane >> u32(2)) + u32(8) * u32(row)"
        out.line(f"token = u32(token_tile * u32({TOKENS}) + {within})")
        out.line("to = head_at + u64(token) * row_bytes")
        for half in (0, 1):
            out.line(f"at = 32 * number + {16 * half} + 2 * row")
            for j in range(4):
                pair = f"total[at + {4 * j}]{undone}, total[at + {4 * j + 1}]{undone}"
                out.line(f"word_{j} = ptx.pack_{traits.dtype}({pair})")
            out.line(f"there = u32(1) if token < seq_kv and column + u32({32 * half}) < width else u32(0)")
            out.line(f"ptx.store_words4(to + u64({64 * half}), word_0, word_1, word_2, word_3, there)")
