"""Text of the first stage: tokens to slots, E K and F V, with partial sums over splits of the sequence.

One function serves keys and values. The splits are of a number that depends on the problem alone and are summed in
order, so that results are the same bits for any number of threads.
"""

from __future__ import annotations

from flurka_numba.targets.cpu.entries import entry_of
from flurka_numba.targets.cpu.plan import CpuPlan
from flurka_numba.targets.cpu.prelude import FUNCTION, emit_keep, emit_scratch, emit_strides, place
from flurka_numba.targets.cpu.rows import emit_stage
from splat_numba.gen.language.writer import SourceWriter


def emit_compress(out: SourceWriter, plan: CpuPlan) -> None:
    """compress: partial[batch, head, split] = proj times the tokens of one split.

    16 heads of 16384 x 64 tokens to 256 slots take 43 ms of one Zen 5 core, 34 of them products; OpenBLAS takes 100, or
    81 as one product of tokens that already lie as (tokens, heads x dim).
    """
    tile, apart = plan.tile_tokens, plan.proj_apart
    with out.function(
        FUNCTION,
        entry_of(plan, "compress").header,
        "partial[batch, head, split] = proj source; an item is a split and ``group`` heads that share a projection.",
    ):
        emit_strides(out, plan.dtype, "source")
        emit_strides(out, plan.dtype, "proj", axes=3)
        out.lines(
            f"""
            batches, heads, seq, dim = source.shape
            slots, groups = proj.shape[1], -(-heads // group)
            splits, slots_padded, dims = partial.shape[2:]
            size = slots_padded * dims
            share = -(-seq // (splits * {tile})) * {tile}  # tokens of a split, in whole tiles
            """
        )
        emit_scratch(out, weights=f"slots_padded * {apart}", tokens=f"{tile} * dims")
        with out.block("for item in range(first, last)"):
            out.lines(
                """
                member, rest = item % groups, item // groups
                batch, split = rest % batches, rest // batches
                heads_from, heads_to = member * group, min(heads, member * group + group)
                stop = min(lengths[batch], split * share + share)
                """
            )
            total = "address(partial, ((batch * heads + head) * splits + split) * size)"
            with out.block("for head in range(heads_from, heads_to)"):
                out.line(f"clear({total}, size)")
            with out.block(f"for token in range(split * share, stop, {tile})"):
                out.line(f"count = min({tile}, stop - token)")
                emit_stage_proj(out, plan, "heads_from % proj.shape[0]")
                with out.block("for head in range(heads_from, heads_to)"):
                    emit_stage(out, plan.dtype, "source", "tokens", "dim", "dims")
                    out.line(f"total = {total}")
                    factors = f"weights, {apart}, 1, slots_padded, count, tokens"
                    out.line(f"multiply_onto({factors}, dims, total, dims)")
        emit_keep(out)


def emit_stage_proj(out: SourceWriter, plan: CpuPlan, which: str) -> None:
    """``count`` columns, from ``token`` on, of a projection."""
    columns = f"{place('proj', which, '0', 'token')}, proj_at[1], proj_at[2]"
    out.line(f"stage_{plan.dtype}({columns}, slots, count, weights, {plan.proj_apart})")


def emit_fold(out: SourceWriter, plan: CpuPlan) -> None:
    """fold: the sum of the splits."""
    with out.function(FUNCTION, entry_of(plan, "fold").header, "total[item] = the splits of a head, in order."):
        out.line("splits, size = partial.shape[2], partial.shape[3] * partial.shape[4]")
        with out.block("for item in range(first, last)"), out.block("for at in range(0, size, WIDTH)"):
            out.line("value = splat(real(0.0))")
            with out.block("for split in range(splits)"):
                out.line("value = value + load(address(partial, (item * splits + split) * size), at)")
            out.line("store(address(total, item * size), at, value)")
        out.line("return first")
