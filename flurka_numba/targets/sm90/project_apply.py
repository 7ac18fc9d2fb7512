"""Stage 3 from the layer's input: q = x w_q is made in registers, and out = phi(q) S / phi(q).z leaves from there.

A tile is 128 tokens x 128 columns of q, those of neighbouring heads. A warp fetches steps of 64 of x's columns and of
w_q's rows, and behind a tile's last step the heads' states. Two warpgroups have tiles of their own by turns: the
features and results of one are made beside the products of the other. The turn passes when a tile's states are there;
sooner, a stage could be in the phase that is waited for because of an older step. What a lane has of q, two
neighbouring columns of two rows, is a word of the next product's left operand, so features keep their order.
"""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu.lanes import QUAD_BYTES, WARP_OF_BLOCK, quad_of
from flurka_numba.targets.gpu_text import parameters_of, start_text
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
from flurka_numba.targets.sm90.lanes import GROUP_OF_BLOCK, LANE_OF_ROW, LANE_ROW
from flurka_numba.targets.sm90.project_producer import emit_place, emit_producer
from flurka_numba.targets.sm90.project_shape import (
    COLUMNS,
    GROUPS,
    HALVES,
    INPUT_BYTES,
    STAGE_BYTES,
    TOKENS,
    ProjectTraits,
)
from flurka_numba.targets.sm90.ring import consuming, emit_first_step, emit_rings, emit_steps, producing
from flurka_numba.targets.sm90.shape import BARRIER_BYTES, STEP
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.language.lane_layout import (
    ATOM,
    LANE_COLUMNS,
    LANE_ROWS,
    LEFT_WORDS,
    MATRIX,
    WARP,
    sums_of,
    words_of,
)
from splat_numba.gen.targets.gpu.functions import emit_shared_start
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import (
    ALIGNMENT,
    GROUP,
    PRODUCT_DEPTH,
    SPAN_BYTES,
    STEP_OF_ROWS,
    WARPGROUP,
    keys_descriptor,
    units,
    values_descriptor,
)

POINTERS = ("x_map", "w_q_map", "states", "out")
COUNTS = ("heads", "seq_q", "steps", "tiles", "column_tiles", "row_tiles")
STRIDES = ("out_row", "out_head", "out_batch")
ENTRY = "project_apply"
PRODUCER_REGISTERS, CONSUMER_REGISTERS = 24, 240  # of a thread; 168 are what each has at first


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
        fetches = "The warp that fetches steps, and states; one lane alone begins copies."
        with producing(out, GROUPS, fetches, gives_registers=True):
            emit_producer(out, traits)
        text = "A warpgroup, which has every second tile: its queries, head by head its results."
        with consuming(out, text, takes_registers=True):
            _emit_consumer(out, traits)
    return out.text()


def _emit_start(out: KernelWriter, traits: ProjectTraits) -> None:
    """Places in shared memory, and barriers: a stage is given back by the warpgroup whose tile it is of."""
    emit_shared_start(out, "base", ALIGNMENT)
    out.lines(
        f"""
        states_at = u32(base + u32({traits.stages * STAGE_BYTES}))
        full = u32(states_at + u32({traits.state_bytes}))
        empty = u32(full + u32({BARRIER_BYTES * traits.stages}))
        states_full = u32(empty + u32({BARRIER_BYTES * traits.stages}))
        states_empty = u32(states_full + u32({BARRIER_BYTES}))
        turn = u32(states_empty + u32({BARRIER_BYTES}))  # of the warpgroup, given to it by the other's warps
        """
    )
    turns = {f"turn + u32({BARRIER_BYTES * group})": WARPGROUP // WARP for group in range(GROUPS)}
    emit_rings(out, {"": traits.stages, "states_": 1}, WARPGROUP // WARP, turns)
    out.line("tile = ptx.block_index()")


def _emit_consumer(out: KernelWriter, traits: ProjectTraits) -> None:
    """A warpgroup has every second tile, all of it: its queries, then head by head its results."""
    out.lines(
        f"""
        group = u32{GROUP_OF_BLOCK}
        number = group  # of the tile among this block's
        tile = u32(tile + number * ptx.grid_size())
        given = u32(group ^ u32(1))  # parity of the phase in which the turn was; a fresh barrier counts as one
        row_in_half = u32(({WARP_OF_BLOCK} & u32({GROUP // ATOM - 1})) * u32({ATOM}) + {LANE_ROW})
        before = u32(0)
        word = cuda.local.array({words_of(traits.apply.head_dim)}, dtype=np.uint32)
        """
    )
    emit_totals(out, traits.apply)
    for half in range(HALVES):
        out.line(f"q_{half} = cuda.local.array({sums_of(COLUMNS)}, dtype=np.float32)")
    with out.block("while tile < tiles"):
        emit_place(out)
        with out.part("make_queries", "q of a tile, when it is this warpgroup's turn, which passes before it is done."):
            _emit_queries(out, traits)
        out.line(f"head_at = out + u64(entry) * out_batch + u64({QUAD_BYTES}) * u64{LANE_OF_ROW}")
        for half in range(HALVES):
            out.line(f"now_0 = u32(first_row + u32({GROUP * half}) + row_in_half)")
            out.line(f"now_1 = u32(now_0 + u32({MATRIX}))")
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
        ptx.mbarrier_wait(turn + u32({BARRIER_BYTES}) * group, given)
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
        f"""
        ptx.mbarrier_wait(states_full, number & u32(1))
        ptx.mbarrier_arrive(turn + u32({BARRIER_BYTES}) * (group ^ u32(1)), leader)
        ptx.wgmma_wait_all()
        ptx.mbarrier_arrive(empty + before * u32({BARRIER_BYTES}), leader)
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
        steps = range(0, words_of(apply.head_dim), LEFT_WORDS)
        emit_products(out, apply, [quad_of("word", first) for first in steps])
        emit_results(out, apply)


def _emit_features(out: KernelWriter, apply: ApplyTraits, queries: str) -> None:
    """Of the head's columns of q."""
    phi = {name: gpu_text(apply.feature_map.source, name) for name in ("low", "high")}  # type: ignore[union-attr]
    out.line(f"column = {sums_of(apply.head_dim)} * head")
    with out.block(f"for i in range({words_of(apply.head_dim)})"):
        pair = f"{queries}[column + {LANE_COLUMNS} * i], {queries}[column + {LANE_COLUMNS} * i + 1]"
        out.line(f"low, high = {pair}")
        if apply.scaled:
            out.line(f"{pair} = {phi['low']}, {phi['high']}")
        else:
            out.line(f"word[i] = ptx.pack_{apply.dtype}({phi['low']}, {phi['high']})")
    if apply.scaled:
        emit_scaled_words(out, apply, queries, "column", f"i % {LANE_ROWS} == 1")
