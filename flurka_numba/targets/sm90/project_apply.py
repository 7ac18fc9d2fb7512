"""Stage 3 from the layer's input: q = x w_q is made in registers, and out = phi(q) S / phi(q).z leaves from there.

A tile is 128 tokens x 128 columns of q, those of neighbouring heads. A warp fetches steps of 64 of x's columns and of
w_q's rows, and behind a tile's last step the heads' states. Two warpgroups have tiles of their own by turns: the
features and results of one are made beside the products of the other. The turn passes when a tile's states are there;
sooner, a stage could be in the phase that is waited for because of an older step. What a lane has of q, two
neighbouring columns of two rows, is a word of the next product's left operand, so features keep their order.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu_text import emit_shared_start, parameters_of, start_text
from flurka_numba.targets.sm90.apply_rows import (
    emit_products,
    emit_results,
    emit_scaled_words,
    emit_state_scale,
    emit_totals,
    product,
    products_of,
)
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.ring import emit_advance, emit_first_step, emit_rings, emit_steps
from flurka_numba.targets.sm90.shape import BARRIERS_BYTES, CHUNK, STEP
from splat_numba.gen.entry import Entry
from splat_numba.gen.machine import WARP
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    GROUP,
    PRODUCT_DEPTH,
    SHARED_BYTES,
    SPAN_BYTES,
    STEP_OF_ROWS,
    WARPGROUP,
    keys_descriptor,
    units,
    values_descriptor,
)
from splat_numba.gen.tensor_map import SPAN

POINTERS = ("x_map", "w_q_map", "states", "out")
COUNTS = ("heads", "seq_q", "steps", "tiles", "column_tiles", "row_tiles")
STRIDES = ("out_row", "out_head", "out_batch")
ENTRY = "project_apply"
GROUPS = 2  # warpgroups with a tile each
HALVES = 2  # of a tile: 64 tokens each
TOKENS = GROUP * HALVES
COLUMNS = 128
LARGEST_BARRIERS = 256  # bytes, of all stages and of the warpgroups
PRODUCER_REGISTERS, CONSUMER_REGISTERS = 24, 240  # of a thread; 168 are what each has at first
INPUT_BYTES = TOKENS * SPAN_BYTES  # of x, for one step
WEIGHT_BYTES = COLUMNS // SPAN * STEP * SPAN_BYTES
STAGE_BYTES = INPUT_BYTES + WEIGHT_BYTES


@dataclass(frozen=True, slots=True)
class ProjectTraits:
    """apply: what is done with the queries."""

    apply: ApplyTraits

    @property
    def heads(self) -> int:
        """Of a tile."""
        return COLUMNS // self.apply.head_dim

    @property
    def fits(self) -> bool:
        """Whether whole heads make up a tile."""
        apply = self.apply
        if not isinstance(apply.feature_map, FeatureMap) or apply.head_dim != apply.value_dim:
            return False
        return apply.head_dim % CHUNK == 0 and COLUMNS % apply.head_dim == 0

    @property
    def state_bytes(self) -> int:
        """Of a tile's states."""
        return self.heads * self.apply.state_bytes

    @property
    def stages(self) -> int:
        """Steps in flight."""
        return (SHARED_BYTES - ALIGNMENT - self.state_bytes - LARGEST_BARRIERS) // STAGE_BYTES

    @property
    def shared_bytes(self) -> int:
        """Steps, states, then barriers: two a stage, two of the states, and a turn a warpgroup."""
        return self.stages * (STAGE_BYTES + BARRIERS_BYTES) + self.state_bytes + BARRIERS_BYTES + 8 * GROUPS + ALIGNMENT


def project_entry(traits: ProjectTraits) -> Entry:
    """How the kernel is called."""
    parameters = parameters_of(POINTERS, COUNTS, STRIDES)
    return Entry(ENTRY, parameters, WARPGROUP * (GROUPS + 1), 1, traits.shared_bytes, overlaps=True)


def render_project_apply(traits: ProjectTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    apply = traits.apply
    products = {f"add_to_{name}": product(apply, columns) for columns, _, name in products_of(apply)}
    products["fewer_registers"] = f"release_registers({PRODUCER_REGISTERS})"
    products["more_registers"] = f"claim_registers({CONSUMER_REGISTERS})"
    project = f'{COLUMNS}, "{apply.dtype}", from_registers=False, transposed=True'
    products |= {"begin": f"matrix_product({project}, fresh=True)", "project": f"matrix_product({project})"}
    out = start_text(
        project_entry(traits),
        f"Queries from x, and every head's state applied to them, for feature map {apply.feature_map.name}.",
        f"head_dim {apply.head_dim}, {apply.dtype}; {TOKENS} tokens x {COLUMNS} columns a tile.",
        products,
    )
    with out.suite():
        _emit_start(out, traits)
        with out.block(f"if thread >= u32({WARPGROUP * GROUPS})"):
            out.line("fewer_registers()")
            with (
                out.block(f"if thread < u32({WARPGROUP * GROUPS + WARP})"),
                out.part("produce", "The warp that fetches steps, and states; one lane alone begins copies."),
            ):
                _emit_producer(out, traits)
        with out.block("else"):
            out.line("more_registers()")
            with out.part(
                "consume", "A warpgroup, which has every second tile: its queries, head by head its results."
            ):
                _emit_consumer(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: ProjectTraits) -> None:
    """Places in shared memory, and barriers: a stage is given back by the warpgroup whose tile it is of."""
    emit_shared_start(out, "base", ALIGNMENT)
    out.lines(
        f"""
        states_at = u32(base + u32({traits.stages * STAGE_BYTES}))
        full = u32(states_at + u32({traits.state_bytes}))
        empty = u32(full + u32({8 * traits.stages}))
        states_full = u32(empty + u32({8 * traits.stages}))
        states_empty = u32(states_full + u32(8))
        turn = u32(states_empty + u32(8))  # of the warpgroup, given to it by the other's warps
        """
    )
    turns = {f"turn + u32({8 * group})": 4 for group in range(GROUPS)}
    emit_rings(out, {"": traits.stages, "states_": 1}, 4, turns)
    out.line("tile = ptx.block_index()")


def _emit_place(out: KernelWriter) -> None:
    """Where ``tile`` is: neighbouring blocks read the same tokens."""
    with out.part("find_tile", "Where a tile is: neighbouring blocks read the same tokens."):
        out.lines(
            f"""
            rest = u32(tile // column_tiles)
            column_tile = u32(tile - rest * column_tiles)
            entry = u32(rest // row_tiles)
            first_row = u32((rest - entry * row_tiles) * u32({TOKENS}))
            """
        )


def _emit_producer(out: KernelWriter, traits: ProjectTraits) -> None:
    """One warp; what only one lane may do is predicated by ``leader``. What lies outside an array arrives as 0."""
    out.lines(
        """
        stage = u32(0)
        free = u32(1)  # parity of the phase in which a stage was given back; a fresh barrier counts as given back
        states_free = u32(1)
        """
    )
    out.line("ptx.fence_tensor_map(x_map)")
    out.line("ptx.fence_tensor_map(w_q_map)")
    with out.block("while tile < tiles"):
        _emit_place(out)
        out.line("step = u32(0)")
        with out.block("while step < steps"):
            out.line("ptx.mbarrier_wait(empty + stage * u32(8), free)")
            _emit_step(out)
            out.line("step = u32(step + u32(1))")
            emit_advance(out, "stage", "free", traits.stages)
        out.line("ptx.await_launch()  # of the states")
        out.line("ptx.mbarrier_wait(states_empty, states_free)")
        out.line("states_free = u32(states_free ^ u32(1))")
        with out.part("load_states", "The states of a tile's heads."):
            out.lines(
                f"""
                ptx.mbarrier_expect(states_full, u32({traits.state_bytes}), leader)
                pair = u64(entry) * u64(heads) + u64(column_tile * u32({traits.heads}))
                from_states = states + u64({traits.apply.state_bytes}) * pair
                ptx.bulk_copy(states_at, from_states, u32({traits.state_bytes}), states_full, leader)
                """
            )
        out.line("tile = u32(tile + ptx.grid_size())")


def _emit_step(out: KernelWriter) -> None:
    """64 columns of x for the tile's tokens, and these rows of w_q for its columns."""
    with out.part("load_step", "64 columns of x for the tile's tokens, and these rows of w_q for its columns."):
        out.lines(
            f"""
            barrier = u32(full + stage * u32(8))
            ptx.mbarrier_expect(barrier, u32({STAGE_BYTES}), leader)
            to = u32(base + stage * u32({STAGE_BYTES}))
            from_column = u32(step * u32({STEP}))
            ptx.tensor_copy(to, x_map, barrier, from_column, first_row, u32(0), u32(0), entry, leader)
            """
        )
        for span in range(COLUMNS // SPAN):
            out.line(f"column = u32(column_tile * u32({COLUMNS}) + u32({SPAN * span}))")
            at = f"to + u32({INPUT_BYTES + span * STEP * SPAN_BYTES})"
            place = "column, from_column, u32(0), u32(0), u32(0)"
            out.line(f"ptx.tensor_copy({at}, w_q_map, barrier, {place}, leader)")


def _emit_consumer(out: KernelWriter, traits: ProjectTraits) -> None:
    """A warpgroup has every second tile, all of it: its queries, then head by head its results."""
    out.lines(
        f"""
        group = u32(thread >> u32(7))
        number = group  # of the tile among this block's
        tile = u32(tile + number * ptx.grid_size())
        given = u32(group ^ u32(1))  # parity of the phase in which the turn was; a fresh barrier counts as one
        row_in_half = u32(((thread >> u32(5)) & u32(3)) * u32(16) + (lane >> u32(2)))
        before = u32(0)
        word = cuda.local.array({traits.apply.head_dim // 4}, dtype=np.uint32)
        """
    )
    emit_totals(out, traits.apply)
    for half in range(HALVES):
        out.line(f"q_{half} = cuda.local.array({COLUMNS // 2}, dtype=np.float32)")
    with out.block("while tile < tiles"):
        _emit_place(out)
        with out.part("make_queries", "q of a tile, when it is this warpgroup's turn, which passes before it is done."):
            _emit_queries(out, traits)
        out.line("head_at = out + u64(entry) * out_batch + u64(16) * u64(lane & u32(3))")
        for half in range(HALVES):
            out.line(f"now_0 = u32(first_row + u32({GROUP * half}) + row_in_half)")
            out.line("now_1 = u32(now_0 + u32(8))")
            for head in range(traits.heads):
                _emit_head(out, traits, half, head)
        out.lines(
            f"""
            ptx.mbarrier_arrive(states_empty, leader)
            number = u32(number + u32({GROUPS}))
            tile = u32(tile + u32({GROUPS}) * ptx.grid_size())
            """
        )


def _emit_queries(out: KernelWriter, traits: ProjectTraits) -> None:
    """q of the tile, when it is this warpgroup's turn; the turn passes before the last products are waited for."""
    out.lines(
        f"""
        stage = u32(number * steps)  # of all that came before
        phase = u32((stage // u32({traits.stages})) & u32(1))
        stage = u32(stage - stage // u32({traits.stages}) * u32({traits.stages}))
        step = u32(0)
        held = u32(0)
        ptx.mbarrier_wait(turn + u32(8) * group, given)
        given = u32(given ^ u32(1))
        """
    )
    operands = f"""
        x_at = base + stage * u32({STAGE_BYTES})
        x_rows = u64({keys_descriptor()}) | u64(x_at >> u32(4))
        weights = u64({values_descriptor(STEP)}) | u64((x_at + u32({INPUT_BYTES})) >> u32(4))
        """
    every = [(k, half) for k in range(STEP // PRODUCT_DEPTH) for half in range(HALVES)]
    emit_first_step(out, traits.stages, operands, [_product(k, half, fresh=k == 0) for k, half in every])
    emit_steps(out, "steps", traits.stages, operands, [_product(k, half) for k, half in every])
    out.lines(
        """
        ptx.mbarrier_wait(states_full, number & u32(1))
        ptx.mbarrier_arrive(turn + u32(8) * (group ^ u32(1)), leader)
        ptx.wgmma_wait_all()
        ptx.mbarrier_arrive(empty + before * u32(8), leader)
        """
    )


def _product(k: int, half: int, *, fresh: bool = False) -> str:
    """16 of a step's columns of x, for 64 tokens of the tile. fresh: what q held was of an earlier tile."""
    rows = 2 * k + half * units(GROUP * SPAN_BYTES)
    name, add = ("begin", "") if fresh else ("project", ", u32(1)")
    return f"{name}(q_{half}, x_rows + u64({rows}), weights + u64({STEP_OF_ROWS * k}){add})"


def _emit_head(out: KernelWriter, traits: ProjectTraits, half: int, head: int) -> None:
    """Features, in words as a product takes them, then what apply does with them."""
    apply, text = traits.apply, "Features of a head's queries, its state applied to them, and the results stored."
    with out.part(f"apply_head_of_{half}", text, head=str(head)):
        out.line(f"state = u32(states_at + u32({apply.state_bytes}) * u32(head))")
        emit_state_scale(out, apply, "state")
        with out.part(f"make_features_of_{half}", "phi, in words as a product takes them."):
            _emit_features(out, apply, f"q_{half}")
        out.lines(
            f"""
            descriptor = u64({keys_descriptor()}) | u64(state >> u32(4))
            out_at = head_at + u64(column_tile * u32({traits.heads}) + u32(head)) * out_head
            """
        )
        steps = range(0, apply.head_dim // 4, 4)
        emit_products(out, apply, [", ".join(f"word[{first + i}]" for i in range(4)) for first in steps])
        emit_results(out, apply)


def _emit_features(out: KernelWriter, apply: ApplyTraits, queries: str) -> None:
    """Of the head's columns of q."""
    phi = {name: gpu_text(apply.feature_map.source, name) for name in ("low", "high")}  # type: ignore[union-attr]
    out.line(f"column = {apply.head_dim // 2} * head")
    with out.block(f"for i in range({apply.head_dim // 4})"):
        pair = f"{queries}[column + 2 * i], {queries}[column + 2 * i + 1]"
        out.line(f"low, high = {pair}")
        if apply.scaled:
            out.line(f"{pair} = {phi['low']}, {phi['high']}")
        else:
            out.line(f"word[i] = ptx.pack_{apply.dtype}({phi['low']}, {phi['high']})")
    if apply.scaled:
        emit_scaled_words(out, apply, queries, "column", "i % 2 == 1")
