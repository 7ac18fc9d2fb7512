"""The order of a launch's items: row blocks of heads and batch entries, in waves that share a cache."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes.passes import BoxPass, BoxTable
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.schedules.tensor import Tensor

WAVE_BYTES = 24 << 20  # of keys and values that stay in the L2 cache (50 MB, of which a block reaches the nearer half)
SPARSE = 0.25  # of the keys, fetched by a row block on average


def emit_rank(out: SourceWriter) -> None:
    """An item's row block and batch entry, and its number among all pairs of batch entry and head."""
    out.lines(
        """
        number = u32(min(item, items - u32(1)))
        wave_items = u32(heads_per_wave * blocks)
        wave = u32(number // wave_items)
        left = u32(number - wave * wave_items)
        first_pair = u32(wave * heads_per_wave)
        width = u32(min(heads_per_wave, u32(heads_count * batch - first_pair)))
        rank = u32(left // width)
        pair = u32(first_pair + left - rank * width)
        entry = u32(pair // heads_count)
        """
    )


def item_counts(
    one: BoxPass, heads: int, batch: int, fetched_from: tuple[Tensor, Tensor], group: int
) -> dict[str, int | float]:
    """How many items a launch has and in which order they come: parameters of every text that goes by `emit_rank`.

    heads: that the launch has; fetched_from: the arrays whose tiles pass by; group: query heads that share a key head.
    """
    return {
        "blocks": len(one.table.block), "heads_count": heads, "batch": batch,
        "heads_per_wave": heads_per_wave(one, fetched_from, group, heads * batch),
    }  # fmt: skip


def heads_per_wave(one: BoxPass, fetched_from: tuple[Tensor, Tensor], group: int, pairs: int) -> int:
    """(batch, head) pairs whose tiles' arrays fit the cache together, query heads of one key head sharing theirs.

    All of them where row blocks need few of the keys: neighbours then share those whatever the order, and the longest
    row blocks of all heads (Longformer's global rows) had better come first.
    """
    first, second = fetched_from
    seq_kv = first.sizes[2]
    fetched = float(one.table.block[:, 5].mean()) * one.tile_kv if len(one.table.block) else 0.0
    if fetched < SPARSE * seq_kv:
        return max(pairs, 1)
    pair = seq_kv * (first.sizes[3] + second.sizes[3]) * ITEMSIZE[first.dtype]
    fitting = max(WAVE_BYTES // max(pair, 1), 1)
    if fitting * group >= pairs:
        return max(pairs, 1)
    tiles = one.table.block[:, 5]
    alike = bool((tiles == tiles[0]).all())
    return group * (fitting if alike else _fullest(fitting, group, pairs))


def _fullest(fitting: int, group: int, pairs: int) -> int:
    """Groups a wave, more than half of those that fit, of which the last wave has the largest share. It begins with its
    longest row blocks when there is nothing else left to do: causal gradients of 8 pairs took 1.19 times as long in
    waves of 6 and 2 as in two of 4 would be right (benchmarks/results/gpu_sm80.md).
    """

    def share(groups: int) -> tuple[float, int]:
        width = groups * group
        return (pairs - 1) % width / width, groups

    return max(range(fitting // 2 + 1, fitting + 1), key=share)


def view_steps(table: BoxTable) -> NDArray[np.int32]:
    """(kv_views, 4) int32: offset, inner_step, outer_step, 0 of every view of the keys."""
    rows = [(view.offset, view.inner_step, view.outer_step, 0) for view in table.kv_views]
    return np.array(rows, np.int32).reshape(-1, 4)
