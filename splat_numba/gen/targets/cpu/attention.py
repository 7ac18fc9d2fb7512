"""The attention kernel's text: prelude, tile functions, and one entry function a pass."""

from __future__ import annotations

from splat_numba.gen.plan import ClosedPass, Pass, Plan, Segment, TablePass
from splat_numba.gen.writer import SourceWriter
from splat_numba.gen.targets.cpu import blocks, products, rows, softmax
from splat_numba.gen.targets.cpu.bounds_text import render_base, render_bound, render_edge
from splat_numba.gen.targets.cpu.prelude import FUNCTION, emit_exp2, emit_imports
from splat_numba.gen.targets.cpu.shape import TileShape, tile_shape, vector_width


def render_attention(plan: Plan) -> str:
    """Python source of the attention kernel of ``plan``: functions ``pass_0``, ``pass_1``, ... one a pass.

    Pure and deterministic. A pass takes a range of work items, (batch, head, residue class, row block) flattened with
    the block fastest; ranges are independent, so that threads may take them in any order.
    """
    out = SourceWriter()
    _emit_docstring(out, plan)
    emit_imports(out, plan.problem.compute_dtype, vector_width(plan.machine, plan.problem.compute_dtype))
    emit_exp2(out, plan.problem.compute_dtype)
    _emit_tile_functions(out, plan)
    for number, one in enumerate(plan.passes):
        shape = tile_shape(plan, one)
        if isinstance(one, ClosedPass):
            _emit_closed_pass(out, number, plan, one, shape)
        else:
            _emit_table_pass(out, number, plan, one, shape)
    return out.text()


def _emit_docstring(out: SourceWriter, plan: Plan) -> None:
    problem = plan.problem
    lengths = "of any length" if plan.closed else f"{problem.seq_q} x {problem.seq_kv}"
    quotes = '"' * 3
    out.lines(
        f"""
        {quotes}Sparse attention, generated for {plan.mask}.

        Sequences {lengths}; head_dim {problem.head_dim}, value_dim {problem.value_dim}, {problem.dtype}; target {plan.target}.
        Call a pass with a range of work items first .. last - 1; ranges are independent of each other.
        {quotes}
        """
    )
    out.line()


def _emit_tile_functions(out: SourceWriter, plan: Plan) -> None:
    """Each function once, for every tile shape and need among the passes."""
    done: set[tuple[str, TileShape]] = set()

    def once(kind: str, shape: TileShape) -> bool:
        fresh = (kind, shape) not in done
        done.add((kind, shape))
        return fresh

    for one in plan.passes:
        shape = tile_shape(plan, one)
        table = one if isinstance(one, TablePass) else None
        predicates = ["full", "inside"] if table is None else ["full", *(["bits"] if table.masks else [])]
        if once("rows", shape):
            rows.emit_load_queries(out, shape)
            rows.emit_store(out, shape, plan.out_dtype)
            products.emit_score_tile(out, shape)
            products.emit_value_tile(out, shape)
        if shape.staged and once("stage", shape):
            rows.emit_stage(out, shape)
        if table is not None and table.gathers and once("gather", shape):
            rows.emit_gather(out, shape)
        for predicate in predicates:
            if once(predicate, shape):
                softmax.emit_softmax(out, shape, predicate)
        if once(f"resumes {one.resumes}", shape):
            if one.resumes:
                rows.emit_resume(out, shape, plan.out_dtype)
            else:
                rows.emit_reset(out, shape)
        if table is None and once("interval", shape):
            blocks.emit_attend_interval(out, shape)
        if table is not None and once("pieces", shape):
            blocks.emit_attend_pieces(out, shape, table.gathers, table.masks)


def _emit_scratch(out: SourceWriter, shape: TileShape, staged: bool) -> None:
    """The block's state: a few tiles, small enough for the second-level cache."""
    tile_q, tile_kv = shape.tile_q, shape.tile_kv
    sizes = [
        ("queries", shape.head_dim * tile_q),
        ("scores", tile_kv * tile_q),
        ("maxima", tile_q),
        ("sums", tile_q),
        ("alpha", tile_q),
        ("total", shape.value_dim * tile_q),
    ]
    if staged:
        sizes.append(("staged", tile_kv * max(shape.head_dim, shape.value_dim)))
    out.line(f"scratch = np.empty({sum(size for _, size in sizes)}, real)")
    place = 0
    for name, size in sizes:
        out.line(f"{name} = address(scratch, {place})")
        place += size


def _emit_strides(out: SourceWriter, plan: Plan) -> None:
    """Strides in elements, and the lengths."""
    sizes = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
    kinds = {"q": plan.problem.dtype, "k": plan.problem.dtype, "v": plan.problem.dtype, "out": plan.out_dtype}
    for name, dtype in kinds.items():
        strides = ", ".join(f"{name}.strides[{axis}] // {sizes[dtype]}" for axis in range(4))
        out.line(f"{name}_at = ({strides})")
    size = sizes[plan.problem.compute_dtype]
    out.line("lse_at = (" + ", ".join(f"lse.strides[{axis}] // {size}" for axis in range(3)) + ")")
    out.line("seq_q, seq_kv = q.shape[2], k.shape[2]")


def _emit_head(out: SourceWriter) -> None:
    """Pointers to the head of a work item."""
    out.lines(
        """
        block, group = item % blocks, item // blocks
        residue, slot = group % classes, group // classes
        batch, head = slot // heads.size, heads[slot % heads.size]
        kv_head = head // (q.shape[1] // k.shape[1])
        limit = min(kv_lengths[batch], seq_kv)
        q_head = address(q, batch * q_at[0] + head * q_at[1])
        k_head = address(k, batch * k_at[0] + kv_head * k_at[1])
        v_head = address(v, batch * v_at[0] + kv_head * v_at[1])
        out_head = address(out, batch * out_at[0] + head * out_at[1])
        lse_head = address(lse, batch * lse_at[0] + head * lse_at[1])
        """
    )


def _emit_begin(out: SourceWriter, one: Pass, shape: TileShape) -> None:
    """Queries in; the softmax state fresh, or as an earlier pass left it."""
    out.line(f"load_queries_{shape.suffix}(q_head, q_at[2], q_at[3], rows, scale, queries)")
    if one.resumes:
        out.line(f"resume_{shape.suffix}({RESULT}, rows, maxima, sums, total)")
    else:
        out.line(f"reset_{shape.suffix}(maxima, sums, total)")


def _emit_entry(out: SourceWriter, number: int, extra: str) -> str:
    out.line()
    out.line()
    out.line(FUNCTION)
    return f"def pass_{number}(first, last, blocks, classes, q, k, v, out, lse, heads, kv_lengths, scale{extra})"


def _emit_closed_pass(out: SourceWriter, number: int, plan: Plan, one: ClosedPass, shape: TileShape) -> None:
    with out.block(_emit_entry(out, number, "")):
        _emit_strides(out, plan)
        out.line("delta = seq_kv - seq_q")
        _emit_scratch(out, shape, shape.staged)
        out.line(f"places, edges = np.empty({shape.tile_q}, np.int64), np.empty({2 * shape.tile_q}, np.int32)")
        out.line(f"rows, low, high = address(places, 0), address(edges, 0), address(edges, {shape.tile_q})")
        out.line(f"row_lo, row_hi = max({render_edge(one.row_lo)}, 0), min({render_edge(one.row_hi)}, seq_q)")
        with out.block("for item in range(first, last)"):
            _emit_head(out)
            _emit_rows(out, one, shape)
            _emit_begin(out, one, shape)
            for segment in one.segments:
                _emit_segment(out, segment, shape)
            out.line(f"store_rows_{shape.suffix}({RESULT}, rows, maxima, sums, total)")
        out.line("return scratch.size + places.size + edges.size  # the pointers above are good until here")


def _emit_rows(out: SourceWriter, one: ClosedPass, shape: TileShape) -> None:
    """The rows of the block: of one residue class, tile_q of them, or what is left."""
    step = one.row_step
    times = f" * {step}" if step > 1 else ""
    out.line(f"row = row_lo + residue + block * {shape.tile_q * step}  # first row of the block")
    left = "row_hi - row" if step == 1 else f"(row_hi - row + {step - 1}) // {step}"
    out.line(f"count = min({shape.tile_q}, {left})")
    with out.block("if count <= 0"):
        out.line("continue")
    with out.block(f"for lane in range({shape.tile_q})"):
        out.line(f"places[lane] = row + lane{times} if lane < count else -1")


def _emit_segment(out: SourceWriter, segment: Segment, shape: TileShape) -> None:
    """One band: every lane's interval in lattice coordinates, then the walk over its tiles."""
    step = segment.lattice.step
    lattice = f"every {step}th column" if step > 1 else "columns"
    out.line(f"# {lattice} from {render_bound(segment.lo)} to {render_bound(segment.hi)}")
    keys, values = "k_head, k_at[2], k_at[3]", "v_head, v_at[2], v_at[3]"
    if step > 1:
        out.line(f"base = {render_base(segment.lattice)}")
        keys, values = (
            f"advance({name}_head, base * {name}_at[2]), {step} * {name}_at[2], {name}_at[3]" for name in "kv"
        )
    with out.block("for lane in range(count)"):
        out.line("row = places[lane]")
        below, above = f"max({render_bound(segment.lo)}, 0)", f"min({render_bound(segment.hi)}, limit)"
        if step > 1:
            below, above = (f"({edge} - base + {step - 1}) // {step}" for edge in (below, above))
        out.line(f"edges[lane] = {below}")
        out.line(f"edges[{shape.tile_q} + lane] = {above}")
    with out.block(f"for lane in range(count, {shape.tile_q})"):
        out.line(f"edges[lane] = edges[{shape.tile_q} + lane] = 0")
    staged = ", staged" if shape.staged else ""
    out.line(f"attend_interval_{shape.suffix}({keys}, {values}, low, high, count, {blocks.STATE}{staged})")


def _emit_table_pass(out: SourceWriter, number: int, plan: Plan, one: TablePass, shape: TileShape) -> None:
    staged = shape.staged or one.gathers
    with out.block(_emit_entry(out, number, ", lane_rows, block_ptr, pieces, masks, columns")):
        _emit_strides(out, plan)
        _emit_scratch(out, shape, staged)
        out.line("piece, lane_bits, cols = address(pieces, 0), address(masks, 0), address(columns, 0)")
        with out.block("for item in range(first, last)"):
            _emit_head(out)
            out.line(f"rows = address(lane_rows, block * {shape.tile_q})")
            _emit_begin(out, one, shape)
            keys, values = "k_head, k_at[2], k_at[3]", "v_head, v_at[2], v_at[3]"
            tables = "piece, block_ptr[block], block_ptr[block + 1], lane_bits, cols, limit"
            tail = f"{blocks.STATE}{', staged' if staged else ''}"
            out.line(f"attend_pieces_{shape.suffix}({keys}, {values}, {tables}, {tail})")
            out.line(f"store_rows_{shape.suffix}({RESULT}, rows, maxima, sums, total)")
        out.line("return scratch.size  # the pointers above are good until here")


RESULT = "out_head, out_at[2], out_at[3], lse_head, lse_at[2]"
