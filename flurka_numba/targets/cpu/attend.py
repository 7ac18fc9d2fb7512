"""Text of the second and third stage: keys and values into a head's state, and queries through it to results.

The state of a head is phi(k)^T v, (features, value_dims), and its sums are those of phi(k); both stay in cache while
queries stream by. Nothing of size tokens x features is ever stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flurka_numba.targets.cpu.entries import entry_of
from flurka_numba.targets.cpu.features import call_features
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, emit_keep, emit_scratch, emit_strides, head_block, item_block
from flurka_numba.targets.cpu.rows import emit_split, emit_stage, emit_store, emit_tile, emit_weights
from splat_numba.gen.language.writer import SourceWriter


def emit_largest_key(out: SourceWriter, plan: CpuPlan) -> None:
    """largest_key: favor's stabiliser of one split of the keys."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        entry_of(plan, "largest_key").header,
        "largest[batch, head, split] = the largest k w; -inf without keys.",
    ):
        emit_strides(out, plan.key_dtype, "k")
        out.line("heads, seq, head_dim, splits = k.shape[1], k.shape[2], k.shape[3], largest.shape[2]")
        out.line("dims, features = padded(head_dim), w.shape[3]")
        emit_scratch(out, tokens=f"{tile} * dims", phi=f"{tile} * features")
        with out.block("for item in range(first, last)"):
            emit_split(out, plan)
            emit_weights(out, plan, "query", "w")
            out.line("top = real(-np.inf)")
            with _each_key_tile(out, plan):
                emit_stage(out, plan.key_dtype, "k", "tokens", "head_dim", "dims")
                out.line("top = max(top, largest_of(tokens, phi, w_head, count, head_dim, dims, kept, features))")
            out.line("largest[batch, head, split] = top")
        emit_keep(out)


@contextmanager
def _each_key_tile(out: SourceWriter, plan: CpuPlan) -> Iterator[None]:
    """The tiles of a split, less what is beyond the length."""
    out.line("stop = min(stop, lengths[batch])")
    with out.block(f"for token in range(start, stop, {plan.tile_rows})"):
        out.line(f"count = min({plan.tile_rows}, stop - token)")
        yield


def emit_absorb(out: SourceWriter, plan: CpuPlan) -> None:
    """absorb: state and sums of one split of the keys."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        entry_of(plan, "absorb").header,
        "state[batch, head, split] = phi(k)^T v and sums[...] = the sum of phi(k), over the rows of one split.",
    ):
        emit_strides(out, plan.key_dtype, "k", "v")
        out.line("heads, seq, head_dim, value_dim = k.shape[1], k.shape[2], k.shape[3], v.shape[3]")
        out.line(
            "splits, features, dims, value_dims = state.shape[2], state.shape[3], padded(head_dim), state.shape[4]"
        )
        emit_scratch(out, tokens=f"{tile} * dims", values=f"{tile} * value_dims", phi=f"{tile} * features")
        with out.block("for item in range(first, last)"):
            emit_split(out, plan)
            emit_weights(out, plan, "key", "w")
            out.line(f"total = {item_block('state', 'features', 'value_dims')}")
            out.line(f"weight = {item_block('sums', 'features')}")
            out.line("clear(total, features * value_dims)")
            out.line("clear(weight, features)")
            with _each_key_tile(out, plan):
                emit_stage(out, plan.key_dtype, "k", "tokens", "head_dim", "dims")
                emit_stage(out, plan.key_dtype, "v", "values", "value_dim", "value_dims")
                out.line(call_features(plan, "key"))
                out.line("multiply_onto(phi, 1, features, features, count, values, value_dims, total, value_dims)")
                out.line("add_rows(phi, count, features, weight)")
        emit_keep(out)


def emit_stretch(out: SourceWriter, plan: CpuPlan) -> None:
    """``stretch``: of the scores that a softmax is of, by which ``scales`` are then."""
    if plan.feature_map == SOFTMAX:
        out.line("stretch = scales[batch, head]")


def emit_attend(out: SourceWriter, plan: CpuPlan) -> None:
    """attend: results of tiles of queries."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        entry_of(plan, "attend").header,
        "out = phi(q) state / (phi(q) . sums), which are scaled alike, an item being a tile of queries.",
    ):
        emit_strides(out, plan.dtype, "q", "out")
        out.line("heads, seq, head_dim, value_dim = q.shape[1], q.shape[2], q.shape[3], out.shape[3]")
        out.line("features, dims, value_dims = state.shape[2], padded(head_dim), state.shape[3]")
        tiles = {"tokens": f"{tile} * dims", "phi": f"{tile} * features", "result": f"{tile} * value_dims"}
        emit_scratch(out, **tiles, inverse=f"{tile}")
        with out.block("for item in range(first, last)"):
            emit_tile(out, plan)
            emit_weights(out, plan, "query", "w")
            emit_stretch(out, plan)
            emit_stage(out, plan.dtype, "q", "tokens", "head_dim", "dims")
            out.line(call_features(plan, "query"))
            out.line(f"divide(phi, {head_block('sums', 'features')}, scales[batch, head], count, features, inverse)")
            out.line(f"matrix = {head_block('state', 'features', 'value_dims')}")
            out.line("multiply(phi, features, 1, count, features, matrix, value_dims, result, value_dims)")
            out.line("scale_rows(result, value_dims, count, inverse)")
            emit_store(out, plan, "result", "value_dims", "value_dim", "out")
        emit_keep(out)
