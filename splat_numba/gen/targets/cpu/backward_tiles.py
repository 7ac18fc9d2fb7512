"""The tiles of a backward pass: weights from lse, gradients of scores, and the sums over rows and over keys."""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu.backward_schedule import padded_dim
from splat_numba.gen.targets.cpu.prelude import FUNCTION, LOG2_E, from_storage
from splat_numba.gen.targets.cpu.products import VECTORS
from splat_numba.gen.targets.cpu.shape import TileShape
from splat_numba.gen.targets.cpu.softmax import PREDICATES


def emit_meet(out: SourceWriter, shape: TileShape) -> None:
    """meet: what every row's lse and dlse say. Rows that keep nothing have no part in anything."""
    with out.function(
        FUNCTION,
        f"meet_{shape.tile_q}(lse, lse_stride, dlse, dlse_stride, rows, level, deltas, live)",
        "level = lse in base 2, deltas = -dlse, live = 1; a lane whose row keeps nothing, or without one: inf, 0, 0.",
    ):
        out.line("dead = 0")
        with out.block(f"for lane in range({shape.tile_q})"):
            out.lines(
                f"""
                row = row_of(rows, lane)
                found = element(lse, row * lse_stride)
                there = element(rows, lane) >= 0 and found != real(-np.inf)
                assign(level, lane, real(found * real({LOG2_E!r})) if there else real(np.inf))
                assign(deltas, lane, real(-element(dlse, row * dlse_stride)) if there else real(0.0))
                assign(live, lane, real(1.0) if there else real(0.0))
                dead += 0 if there else 1
                """
            )
        out.line("return dead")


def emit_silence(out: SourceWriter, shape: TileShape) -> None:
    """silence: lanes that are not live become 0, whatever they hold (0 x NaN is NaN)."""
    with (
        out.function(FUNCTION, f"silence_{shape.tile_q}(tile, dims, live)", "tile[x, lane] = 0 where live[lane] is 0."),
        out.block(f"for lane in range(0, {shape.tile_q}, WIDTH)"),
    ):
        out.line("there = load(live, lane) > splat(real(0.5))")
        with out.block("for x in range(dims)"):
            place = f"x * {shape.tile_q} + lane"
            out.line(f"store(tile, {place}, select(there, load(tile, {place}), splat(real(0.0))))")


def emit_deltas(out: SourceWriter, shape: TileShape) -> None:
    """add_products: the sum over a row of dout * out, onto what is there."""
    with (
        out.function(
            FUNCTION,
            f"add_products_{shape.tile_q}(a, b, dims, sums)",
            "sums[lane] += sum over x of a[x, lane] * b[x, lane].",
        ),
        out.block(f"for lane in range(0, {shape.tile_q}, WIDTH)"),
    ):
        out.line("total = load(sums, lane)")
        with out.block("for x in range(dims)"):
            place = f"x * {shape.tile_q} + lane"
            out.line(f"total = fma(load(a, {place}), load(b, {place}), total)")
        out.line("store(sums, lane, total)")


def emit_copy_rows(out: SourceWriter, shape: TileShape) -> None:
    """copy_rows: a row block in the compute type with its lanes along the rows, for sums over the rows."""
    with (
        out.function(
            FUNCTION,
            f"copy_rows_{shape.dtype}_{shape.tile_q}(source, row_stride, dim_stride, rows, live, dims, padded, target)",
            "target[lane, x] = source[rows[lane], x], 0 beyond dims and where live[lane] is 0.",
        ),
        out.block(f"for lane in range({shape.tile_q})"),
    ):
        out.line("there = element(live, lane) != real(0.0)")
        out.line("here, place = advance(source, row_of(rows, lane) * row_stride), advance(target, lane * padded)")
        out.line("whole = 0")
        if not shape.staged:
            with out.block("if dim_stride == 1 and there"):
                out.line("whole = dims - dims % WIDTH")
                with out.block("for x in range(0, whole, WIDTH)"):
                    out.line("store(place, x, load(here, x))")
        with out.block("for x in range(whole, dims)"):
            value = from_storage(shape.dtype, "element(here, x * dim_stride)")
            out.line(f"assign(place, x, {value} if there else real(0.0))")
        with out.block("for x in range(dims, padded)"):
            out.line("assign(place, x, real(0.0))")


def emit_weigh(out: SourceWriter, shape: TileShape, predicate: str, *, slopes: bool) -> None:
    """weigh: scores become weights, and products become gradients of the scores. slopes: whether there are products."""
    extra, mask, meaning = PREDICATES[predicate]
    place = f"key * {shape.tile_q} + lane"
    products = "products, deltas, factor, " if slopes else ""
    header = f"weigh_{predicate}_{shape.suffix}(scores, {products}count, level{extra})"
    with out.function(FUNCTION, header, f"weights = 2**(score - level), where {meaning}; else 0."):
        out.line("zero = splat(real(0.0))")
        if slopes:
            out.line("times_all = splat(factor)")
        with out.block(f"for lane in range(0, {shape.tile_q}, WIDTH)"):
            out.line("at_level = load(level, lane)")
            if slopes:
                out.line("less = load(deltas, lane)")
            with out.block("for key in range(count)"):
                out.line(f"weight = exp2(load(scores, {place}) - at_level)")
                if mask:
                    out.line(f"kept = {mask}")
                    out.line("weight = select(kept, weight, zero)")
                out.line(f"store(scores, {place}, weight)")
                if slopes:
                    out.line(f"slope = weight * times_all * (load(products, {place}) - less)")
                    out.line(f"store(products, {place}, {'select(kept, slope, zero)' if mask else 'slope'})")


def emit_add_to_keys(out: SourceWriter, shape: TileShape, dim: int, *, listed: bool) -> None:
    """add_to_keys: the sum over the block's rows, onto rows of the keys' gradient, which have whole register tiles.

    listed: the keys are listed one by one.
    """
    name = "add_to_listed" if listed else "add_to_keys"
    place = "target[cols[key], x]" if listed else "target[key, x]"
    more = "cols, " if listed else ""
    padded = padded_dim(shape.width, dim)
    with out.function(
        FUNCTION,
        f"{name}_{padded}_{shape.suffix}(weights, values, {more}count, target, key_stride)",
        f"{place} += sum over lane of weights[key, lane] * values[lane, x].",
    ):
        out.line("zero = splat(real(0.0))")
        out.line(f"whole = count - count % {shape.rows}")
        with out.block(f"for x in range(0, {padded}, {VECTORS} * WIDTH)"):
            for start, stop, rows in (("0", "whole", shape.rows), ("whole", "count", 1)):
                step = f", {rows}" if rows > 1 else ""
                with out.block(f"for key in range({start}, {stop}{step})"):
                    out.line(f"tile = ({', '.join(['zero'] * (rows * VECTORS))})")
                    with out.block(f"for lane in range({shape.tile_q})"):
                        left = f"advance(weights, key * {shape.tile_q} + lane), {shape.tile_q}"
                        out.line(f"tile = multiply_add(tile, {left}, advance(values, lane * {padded} + x))")
                    if listed:
                        out.line("add_listed(tile, advance(target, x), key_stride, advance(cols, key))")
                    else:
                        out.line("add_tile(tile, advance(target, key * key_stride + x), key_stride)")
