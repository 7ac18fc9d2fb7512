"""Text of the second and third stage: keys and values into a head's state, and queries through it to results.

The state of a head is phi(k)^T v, (features, value_dims), and its sums are those of phi(k); both stay in cache while
queries stream by. Nothing of size tokens x features is ever stored.
"""

from __future__ import annotations

from flurka_numba.targets.cpu.features import call_features
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, emit_keep, emit_scratch, emit_strides, head_block, item_block
from flurka_numba.targets.cpu.rows import emit_kept, emit_split, emit_stage, emit_store, emit_tile, emit_weights
from splat_numba.gen.writer import SourceWriter


def emit_absorb(out: SourceWriter, plan: CpuPlan) -> None:
    """absorb: state and sums of one split of the keys."""
    tile = plan.tile_rows
    with out.function(
        FUNCTION,
        "absorb(first, last, k, v, w, stabs, lengths, kept, state, sums)",
        "state[batch, head, split] = phi(k)^T v and sums[...] = the sum of phi(k), over the rows of one split.",
    ):
        emit_strides(out, plan.key_dtype, "k", "v")
        out.line("heads, seq, head_dim, value_dim = k.shape[1], k.shape[2], k.shape[3], v.shape[3]")
        out.line("splits, features, dims, value_dims = state.shape[2], state.shape[3], padded(head_dim), state.shape[4]")
        emit_scratch(out, tokens=f"{tile} * dims", values=f"{tile} * value_dims", phi=f"{tile} * features")
        with out.block("for item in range(first, last)"):
            emit_split(out, plan)
            emit_weights(out, plan, "w", side="key")
            out.line(f"total = {item_block('state', 'features', 'value_dims')}")
            out.line(f"weight = {item_block('sums', 'features')}")
            out.line("clear(total, features * value_dims)")
            out.line("clear(weight, features)")
            with out.block(f"for token in range(start, min(stop, lengths[batch]), {tile})"):
                out.line(f"count = min({tile}, min(stop, lengths[batch]) - token)")
                emit_stage(out, plan.key_dtype, "k", "tokens", "head_dim", "dims")
                emit_stage(out, plan.key_dtype, "v", "values", "value_dim", "value_dims")
                out.line(call_features(plan, "key"))
                out.line("multiply_onto(phi, 1, features, features, count, values, value_dims, total, value_dims)")
                out.line("add_rows(phi, count, features, weight)")
        emit_keep(out)
