"""Launches of attention's passes: the numbers and tensor maps that a pass needs, and which of them calls change."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.targets.sm90.attention import attention_entry
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.launch import Launch
from splat_numba.runtime.cuda.memory import Upload, memory
from splat_numba.runtime.cuda.tables import table_upload
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments, encode, tensor_map_arguments

WAVE_BYTES = 24 << 20  # of keys and values that stay in the L2 cache (50 MB, of which a block reaches the nearer half)
SPARSE = 0.25  # of the keys, fetched by a row block on average
SMALLEST_SCALE = 2.0**-126  # a scale of 0 as the kernel can have it: scores of +-1e30 still round to weights of 1


@dataclass(frozen=True, slots=True)
class Shapes:
    """One call but for its addresses: q, k, v and out as (batch, heads, seq, dim) layouts, and |scale|."""

    q: Layout
    k: Layout
    v: Layout
    out: Layout
    scale: float

    @property
    def group(self) -> int:
        """Query heads of one key head."""
        return self.q.sizes[1] // max(self.k.sizes[1], 1) or 1


def heads_per_wave(shapes: Shapes, items: int, one: BoxPass) -> int:
    """(batch, head) pairs whose keys and values fit the cache together, query heads of one key head sharing theirs.

    All of them where row blocks need few of the keys: neighbours then share those whatever the order, and the longest
    row blocks of all heads (Longformer's global rows) had better come first.
    """
    seq_kv = shapes.k.sizes[2]
    fetched = float(one.table.block[:, 5].mean()) * one.tile_kv if len(one.table.block) else 0.0
    if fetched < SPARSE * seq_kv:
        return max(items, 1)
    pair = seq_kv * (shapes.k.sizes[3] + shapes.v.sizes[3]) * 2
    fitting = max(WAVE_BYTES // max(pair, 1), 1) * shapes.group
    return max(min(fitting, items), 1)


def pass_numbers(one: BoxPass, shapes: Shapes, heads: Sequence[int]) -> dict[str, int | float]:
    """The kernel's parameters that are no addresses, by name."""
    batch, heads_q, seq_q, _ = shapes.q.sizes
    to_batch, to_head, to_row, _ = (step % 2**64 for step in shapes.out.strides)  # negative ones wrap around
    return {
        "scale_log2": scale_log2(shapes.scale), "blocks": len(one.table.block), "heads_count": len(heads),
        "heads_q": heads_q, "group": shapes.group, "batch": batch,
        "heads_per_wave": heads_per_wave(shapes, len(heads) * batch, one), "seq_q": seq_q,
        "q_views": len(one.table.q_views), "kv_views": len(one.table.kv_views), "out_row": to_row,
        "out_head": to_head, "out_batch": to_batch,
    }  # fmt: skip


def pass_maps(one: BoxPass, shapes: Shapes, q: int, k: int, v: int, spare: int) -> list[TensorMapArguments]:
    """The tensor maps of a pass: of q, then of k and v by turns, one of each view. spare: a valid device address."""
    maps = [tensor_map_arguments(view, one.q_box, q, shapes.q, spare) for view in one.table.q_views]
    for view in one.table.kv_views:
        maps.append(tensor_map_arguments(view, one.kv_box, k, shapes.k, spare))
        maps.append(tensor_map_arguments(view, one.kv_box, v, shapes.v, spare))
    return maps


def scale_log2(scale: float) -> float:
    """The factor of scores in base 2; its sign is the plan's."""
    return abs(scale) * math.log2(math.e) or SMALLEST_SCALE


class PassLaunch:
    """One pass of one mask, ready but for addresses. Holds what it points to."""

    def __init__(self, one: BoxPass, function: int, device: Device, shapes: Shapes, heads: Sequence[int]) -> None:
        batch, table, traits = shapes.q.sizes[0], one.table, one.traits
        self.box_pass = one
        self.maps = len(table.q_views) + 2 * len(table.kv_views)
        self._q_bytes = MAP_BYTES * len(table.q_views)
        self._table = found = table_upload(device, table)
        self._heads = Upload(memory(device), np.array(heads, np.int32))
        grid = min(len(table.block) * len(heads) * batch, device.multiprocessors * traits.blocks_per_multiprocessor)
        values = {
            "rows": found.rows.address, "block": found.block.address, "piece": found.piece.address,
            "bits": found.bits.address, "heads": self._heads.address, "views": found.views.address,
            **pass_numbers(one, shapes, heads),
        }  # fmt: skip
        self._launch = Launch(function, attention_entry(traits), grid, values)

    def encode(self, shapes: Shapes, q: int, k: int, v: int) -> list[NDArray[np.uint64]]:
        """The tensor maps of pass_maps(), as the copy engine takes them."""
        return [encode(map_of) for map_of in pass_maps(self.box_pass, shapes, q, k, v, self._heads.address)]

    def run(self, maps: int, out: int, lse: int, kv_lengths: int, counter: int, stream: int) -> None:
        """Launch. maps: the address of encode()'s; counter: of two words that no launch beside this one uses."""
        launch = self._launch
        if not launch.grid:
            return
        parameters = launch.parameters
        with launch.lock:
            parameters.q_maps = maps
            parameters.kv_maps = maps + self._q_bytes
            parameters.out = out
            parameters.lse = lse
            parameters.kv_lengths = kv_lengths
            parameters.counter = counter
            launch.run(stream)
