"""The backward pass's text: the forward plan's walk again, with weights from lse instead of a softmax.

With P = 2**(scores - lse), delta = sum(dout * out) - dlse and dS = scale P (dout V^T - delta): dq = dS K, dk = dS^T Q,
dv = P^T dout (Dao et al., FlashAttention, appendix B). Five products a tile, where two passes that each make P would
take seven. A row block's dq stays with it; dk and dv are added to sums over the whole sequence that belong to the work
item, which is a key head and a share of its row blocks. So no pass runs over the transposed mask, every mask that has a
forward plan has a backward one, and sums are made in an order that no thread changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from splat_numba.gen.language.cpu_entry import CpuEntry, CpuText
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.plan import Pass, Plan
from splat_numba.gen.rows.passes import ClosedPass, TablePass
from splat_numba.gen.targets.cpu import backward_tiles as tiles
from splat_numba.gen.targets.cpu import blocks, products, rows
from splat_numba.gen.targets.cpu.backward_schedule import backward_entries, padded_dim, sum_widths
from splat_numba.gen.targets.cpu.blocks import Walk
from splat_numba.gen.targets.cpu.header import emit_head
from splat_numba.gen.targets.cpu.prelude import FUNCTION, LOG2_E, emit_strides
from splat_numba.gen.targets.cpu.row_blocks import (
    emit_interval_places,
    emit_pieces,
    emit_rows,
    emit_scratch,
    emit_segment,
    emit_table_places,
)
from splat_numba.gen.targets.cpu.shape import TileShape, tile_shape
from splat_numba.gen.targets.gradients import LEVELS, OPERANDS

IMPORTS = "from splat_numba.runtime.tiles import add_listed, add_tile"


def backward_text(plan: Plan, wanted: Wanted) -> CpuText:
    """The text of ``plan``'s backward pass with its entry functions, named after mask, shape and type."""
    problem, entries = plan.problem, backward_entries(plan, wanted)
    name = f"gradients_{'_'.join(wanted.names)}_{plan.label}_d{problem.head_dim}_{problem.dtype}"
    return CpuText(name, render_backward(plan, wanted, entries), entries)


def render_backward(plan: Plan, wanted: Wanted, entries: Sequence[CpuEntry]) -> str:
    """Python source of the backward pass of ``plan``: a function for each entry, one a pass.

    Pure and deterministic. Passes run one after the other, as each adds to what the others left.
    """
    out = SourceWriter()
    emit_head(out, plan, f"Gradients of sparse attention, {', '.join(wanted.names)}", (IMPORTS,))
    _emit_tile_functions(out, plan, wanted)
    for one, entry in zip(plan.passes, entries, strict=True):
        _emit_pass(out, entry, plan, one, wanted)
    return out.text()


def _emit_tile_functions(out: SourceWriter, plan: Plan, wanted: Wanted) -> None:
    """Each function once, for every tile shape and need among the passes."""
    done: set[tuple[object, ...]] = set()

    def once(*key: object) -> bool:
        fresh = key not in done
        done.add(key)
        return fresh

    for one in plan.passes:
        shape = tile_shape(plan, one)
        for dtype in dict.fromkeys((plan.problem.dtype, *([plan.out_dtype] if one.resumes else []))):
            if once("read", dtype, shape.tile_q):
                rows.emit_rows_to_lanes(out, shape, dtype)
        if once("rows", shape.tile_q):
            _emit_row_functions(out, plan, shape, wanted)
        if once("tile", shape):
            _emit_products(out, shape, wanted)
            tiles.emit_weigh(out, shape, "full", slopes=wanted.slopes)
        listed = isinstance(one, TablePass)
        if once("walk", shape, listed):
            walk = _walk(shape, wanted)
            tiles.emit_weigh(out, shape, "bits" if listed else "inside", slopes=wanted.slopes)
            if listed:
                rows.emit_gather(out, shape)
                for dim in dict.fromkeys(_sums(shape, wanted).values()):
                    tiles.emit_add_to_keys(out, shape, dim, listed=True)
                blocks.emit_piece_walk(out, shape, walk)
            else:
                blocks.emit_interval_walk(out, shape, walk)


def _emit_row_functions(out: SourceWriter, plan: Plan, shape: TileShape, wanted: Wanted) -> None:
    tiles.emit_meet(out, shape)
    if wanted.slopes:
        tiles.emit_silence(out, shape)
        tiles.emit_deltas(out, shape)
    if wanted.k or wanted.v:
        tiles.emit_copy_rows(out, shape)
    if wanted.q:
        rows.emit_lanes_to_rows(out, shape, plan.out_dtype)


def _emit_products(out: SourceWriter, shape: TileShape, wanted: Wanted) -> None:
    rows.emit_stage(out, shape)
    products.emit_score_tile(out, shape)
    if wanted.slopes and shape.value_dim != shape.head_dim:
        products.emit_score_tile(out, replace(shape, head_dim=shape.value_dim), "multiply_values")
    if wanted.q:
        products.emit_value_tile(out, replace(shape, value_dim=shape.head_dim), "add_keys")
    for dim in dict.fromkeys(_sums(shape, wanted).values()):
        tiles.emit_add_to_keys(out, shape, dim, listed=False)


def _sums(shape: TileShape, wanted: Wanted) -> dict[str, int]:
    """The gradients that are sums over rows, and the widths of their rows."""
    return sum_widths(wanted, shape.width, shape.head_dim, shape.value_dim)


def _scratch(shape: TileShape, wanted: Wanted) -> dict[str, int]:
    """The block's state and a tile's, by name: numbers of the compute type, small enough for the second-level cache."""
    tile_q, tile_kv = shape.tile_q, shape.tile_kv
    sizes = dict.fromkeys(("level", "deltas", "live", "ones"), tile_q)
    sizes |= {"queries": shape.head_dim * tile_q, "scores": tile_kv * tile_q, "key_tile": tile_kv * shape.head_dim}
    if wanted.slopes:
        sizes |= {"gradients": shape.value_dim * tile_q, "outs": shape.value_dim * tile_q}
        sizes |= {"products": tile_kv * tile_q, "value_tile": tile_kv * shape.value_dim}
    if wanted.q:
        sizes["total"] = shape.head_dim * tile_q
    if wanted.k:
        sizes["query_rows"] = tile_q * padded_dim(shape.width, shape.head_dim)
    if wanted.v:
        sizes["gradient_rows"] = tile_q * padded_dim(shape.width, shape.value_dim)
    return sizes


def _walk(shape: TileShape, wanted: Wanted) -> Walk:
    """The walk of a row block over its key tiles. State: all of the scratch, and the factor of the scores."""
    state = ", ".join((*_scratch(shape, wanted), "factor"))
    sources = blocks.KEYS + "".join(f", {name}, {name}_stride" for name in _sums(shape, wanted))
    weights = f"scores, {'products, deltas, factor, ' if wanted.slopes else ''}count, level"

    def tile(out: SourceWriter, shape: TileShape, start: str, step: str, weighing: str) -> None:
        staged = [f"advance({x}, {start} * {x}_stride), {step}{x}_stride, {x}_dim, count" for x in "kv"]
        targets = {x: f"advance({x}, {start} * {x}_stride), {step}{x}_stride" for x in wanted.sums}
        _emit_tile(out, shape, wanted, (f"stage_{shape.suffix}", *staged), weighing, "add_to_keys", "", targets)

    def gathered(out: SourceWriter, shape: TileShape, weighing: str) -> None:
        listed = "advance(cols, start + done)"
        staged = [f"{x}, {x}_stride, {x}_dim, {listed}, count" for x in "kv"]
        targets = {name: f"{name}, {name}_stride" for name in wanted.sums}
        _emit_tile(
            out, shape, wanted, (f"gather_{shape.suffix}", *staged), weighing, "add_to_listed", f"{listed}, ", targets
        )

    arrays = (*blocks.KEY_ARRAYS, *((f"{name}_head", str(width), "") for name, width in _sums(shape, wanted).items()))
    return Walk("pull", sources, arrays, state, "weigh", weights, tile, gathered)


def _emit_tile(
    out: SourceWriter, shape: TileShape, wanted: Wanted, fetch: Iterable[str], weighing: str, add: str, listed: str,
    targets: dict[str, str],
) -> None:  # fmt: skip
    """One tile. fetch: what copies keys and values, and the places of both; add: what adds to the keys' gradients,
    ``listed``: its list of keys, targets: where to.
    """
    copy, keys, values = fetch
    of_tile = shape.suffix
    out.line(f"{copy}({keys}, {shape.head_dim}, key_tile)")
    out.line(f"multiply_keys_{of_tile}(key_tile, {shape.head_dim}, 1, count, queries, scores)")
    if wanted.slopes:
        out.line(f"{copy}({values}, {shape.value_dim}, value_tile)")
        same = "multiply_keys" if shape.value_dim == shape.head_dim else "multiply_values"
        out.line(f"{same}_{of_tile}(value_tile, {shape.value_dim}, 1, count, gradients, products)")
    out.lines(weighing)
    if wanted.q:
        out.line(f"add_keys_{of_tile}(key_tile, {shape.head_dim}, 1, count, products, ones, total)")
    for name, padded in _sums(shape, wanted).items():
        operands = "products, query_rows" if name == "dk" else "scores, gradient_rows"
        out.line(f"{add}_{padded}_{of_tile}({operands}, {listed}count, {targets[name]})")


def _emit_pass(out: SourceWriter, entry: CpuEntry, plan: Plan, one: Pass, wanted: Wanted) -> None:
    shape = tile_shape(plan, one)
    closed = isinstance(one, ClosedPass)
    what = "follow from the row's number" if closed else "are listed in tables"
    with out.function(FUNCTION, entry.header, f"Row blocks whose keys {what}."):
        _emit_strides(out, plan, wanted)
        emit_scratch(out, _scratch(shape, wanted))
        with out.block(f"for lane in range({shape.tile_q})"):
            out.line("assign(ones, lane, real(1.0))")
        out.line(f"factor, in_base_2 = scale, real(scale * real({LOG2_E!r}))")
        if isinstance(one, ClosedPass):
            emit_interval_places(out, one, shape)
        else:
            emit_table_places(out)
        with out.block("for item in range(first, last)"):
            _emit_key_head(out, shape, wanted)
            with out.block("for index in range(head_ptr[slot], head_ptr[slot + 1])"):
                _emit_head(out, wanted)
                with out.block("for number in range(begin, end)"):
                    out.line("block, residue = number % blocks, number // blocks")
                    _emit_row_block(out, plan, one, shape, wanted)
        kept = "scratch.size + places.size + edges.size" if closed else "scratch.size"
        out.line(f"return {kept}  # the pointers above are good until here")


def _emit_strides(out: SourceWriter, plan: Plan, wanted: Wanted) -> None:
    """Strides in elements, and the lengths."""
    dtypes = dict.fromkeys(OPERANDS, (plan.problem.dtype, 4))
    dtypes |= dict.fromkeys(LEVELS, (plan.problem.compute_dtype, 3))
    if wanted.q:
        dtypes["dq"] = plan.out_dtype, 4
    for name, (dtype, axes) in dtypes.items():
        emit_strides(out, name, dtype, axes)
    out.line("batch_size, seq_q, seq_kv = q.shape[0], q.shape[2], k.shape[2]")
    out.line("delta = seq_kv - seq_q")


def _emit_key_head(out: SourceWriter, shape: TileShape, wanted: Wanted) -> None:
    """What a work item stands for: a key head, and a share of the row blocks of its query heads."""
    out.lines(
        """
        share, group = item % shares, item // shares
        batch, slot = group // key_heads.size, group % key_heads.size
        kv_head = key_heads[slot]
        limit = min(kv_lengths[batch], seq_kv)
        begin, end = blocks * classes * share // shares, blocks * classes * (share + 1) // shares
        k_head = address(k, batch * k_at[0] + kv_head * k_at[1])
        v_head = address(v, batch * v_at[0] + kv_head * v_at[1])
        """
    )
    for name, padded in _sums(shape, wanted).items():
        place = f"((share * batch_size + batch) * k.shape[1] + kv_head) * seq_kv * {padded}"
        out.line(f"{name}_head = address({name}, {place})")


def _emit_head(out: SourceWriter, wanted: Wanted) -> None:
    out.line("head = heads[index]")
    names = [*OPERANDS, *LEVELS, *(["dq"] if wanted.q else [])]
    for name in names:
        if name not in "kv":
            out.line(f"{name}_head = address({name}, batch * {name}_at[0] + head * {name}_at[1])")


def _emit_row_block(out: SourceWriter, plan: Plan, one: Pass, shape: TileShape, wanted: Wanted) -> None:
    walk = _walk(shape, wanted)
    if isinstance(one, ClosedPass):
        emit_rows(out, one, shape)
    else:
        out.line(f"rows = address(lane_rows, block * {shape.tile_q})")
    _emit_begin(out, plan, one, shape, wanted)
    if isinstance(one, ClosedPass):
        for segment in one.segments:
            emit_segment(out, segment, shape, walk)
    else:
        emit_pieces(out, shape, walk)
    if wanted.q:
        transfer = f"lanes_to_rows_{plan.out_dtype}_{shape.tile_q}"
        out.line(f"{transfer}(total, live, dq_head, dq_at[2], dq_at[3], rows, {shape.head_dim})")


def _emit_begin(out: SourceWriter, plan: Plan, one: Pass, shape: TileShape, wanted: Wanted) -> None:
    """What the block's rows bring along: queries, gradients and levels; those that keep nothing bring zeros."""
    dims = {"q": shape.head_dim, "dout": shape.value_dim, "out": shape.value_dim}
    lanes = {"queries": ("q", "in_base_2")}
    if wanted.slopes:
        lanes |= {"gradients": ("dout", "real(1.0)"), "outs": ("out", "real(1.0)")}
    for name, (source, times) in lanes.items():
        of_rows = f"{source}_head, {source}_at[2], {source}_at[3], rows"
        out.line(f"rows_to_lanes_{shape.dtype}_{shape.tile_q}({of_rows}, {dims[source]}, {times}, {name})")
    levels = "lse_head, lse_at[2], dlse_head, dlse_at[2], rows"
    out.line(f"dead = meet_{shape.tile_q}({levels}, level, deltas, live)")
    if wanted.slopes:
        # Not the queries: 0 x -inf is NaN where a key makes every score -inf, and 2**(-inf - inf) is 0.
        with out.block("if dead > 0"):
            for name in ("gradients", "outs"):
                out.line(f"silence_{shape.tile_q}({name}, {shape.value_dim}, live)")
        out.line(f"add_products_{shape.tile_q}(gradients, outs, {shape.value_dim}, deltas)")
    for name, source in (("query_rows", "q"), ("gradient_rows", "dout")):
        if wanted.k if source == "q" else wanted.v:
            of_rows = f"{source}_head, {source}_at[2], {source}_at[3], rows, live"
            padded = padded_dim(shape.width, dims[source])
            out.line(f"copy_rows_{shape.dtype}_{shape.tile_q}({of_rows}, {dims[source]}, {padded}, {name})")
    if wanted.q and one.resumes:
        transfer = f"rows_to_lanes_{plan.out_dtype}_{shape.tile_q}"
        out.line(f"{transfer}(dq_head, dq_at[2], dq_at[3], rows, {shape.head_dim}, real(1.0), total)")
    elif wanted.q:
        with out.block(f"for lane in range(0, {shape.head_dim * shape.tile_q}, WIDTH)"):
            out.line("store(total, lane, splat(real(0.0)))")
