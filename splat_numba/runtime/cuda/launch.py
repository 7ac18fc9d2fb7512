"""Launches of a plan's passes: parameters packed once, then only addresses change.

cuLaunchKernel of cuda.bindings, given a ready array of parameter addresses, is the cheapest way from Python: it
converts nothing, where cuda.core.launch converts every parameter at every call.
"""

from __future__ import annotations

import ctypes
import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.targets.sm90.attention import COUNTS, POINTERS, STRIDES
from splat_numba.gen.targets.sm90.shape import threads_per_block
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.driver import ask, driver, refuse
from splat_numba.runtime.cuda.memory import Upload, memory
from splat_numba.runtime.cuda.tables import table_upload
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments, encode, tensor_map_arguments

WAVE_BYTES = 24 << 20  # of keys and values that stay in the L2 cache (50 MB, of which a block reaches the nearer half)
SPARSE = 0.25  # of the keys, fetched by a row block on average
SMALLEST_SCALE = 1e-30  # a scale of 0 as the kernel can have it: scores of +-1e8 still round to weights of 1
_WIDE, _WORD, _REAL = ctypes.c_uint64, ctypes.c_uint32, ctypes.c_float


class Parameters(ctypes.Structure):
    """The kernel's parameters, in their order."""

    _fields_ = (
        *((name, _WIDE) for name in POINTERS),
        ("scale_log2", _REAL),
        *((name, _WORD) for name in COUNTS),
        *((name, _WIDE) for name in STRIDES),
    )


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
    return max(abs(scale) * math.log2(math.e), SMALLEST_SCALE)


class PassLaunch:
    """One pass of one mask, ready but for addresses. Holds what it points to."""

    def __init__(
        self, one: BoxPass, function: int, shared_bytes: int, device: Device, shapes: Shapes, heads: Sequence[int]
    ) -> None:
        batch, table = shapes.q.sizes[0], one.table
        self.box_pass = one
        self.maps = len(table.q_views) + 2 * len(table.kv_views)
        self._function = function
        self._shared = shared_bytes
        self._table = table_upload(device, table)
        self._heads = Upload(memory(device), np.array(heads, np.int32))
        self._block = threads_per_block(one.traits)
        self._grid = min(
            len(table.block) * len(heads) * batch, device.multiprocessors * one.traits.blocks_per_multiprocessor
        )
        found = self._table
        self._parameters = Parameters(
            rows=found.rows.address, block=found.block.address, piece=found.piece.address, bits=found.bits.address,
            heads=self._heads.address, views=found.views.address, **pass_numbers(one, shapes, heads),
        )  # fmt: skip
        start = ctypes.addressof(self._parameters)
        places = [start + getattr(Parameters, field[0]).offset for field in Parameters._fields_]
        self._places = (ctypes.c_void_p * len(places))(*places)
        self._address = ctypes.addressof(self._places)
        self._q_bytes = MAP_BYTES * len(table.q_views)
        self._launch = driver().cuLaunchKernel
        self._lock = threading.Lock()

    def encode(self, shapes: Shapes, q: int, k: int, v: int) -> list[NDArray[np.uint64]]:
        """The tensor maps of pass_maps(), as the copy engine takes them."""
        return [encode(map_of) for map_of in pass_maps(self.box_pass, shapes, q, k, v, self._heads.address)]

    def run(self, maps: int, out: int, lse: int, kv_lengths: int, counter: int, stream: int) -> None:
        """Launch. maps: the address of encode()'s; counter: of two words that no launch beside this one uses."""
        if not self._grid:
            return
        parameters = self._parameters
        with self._lock:  # the driver copies the parameters before it returns
            parameters.q_maps = maps
            parameters.kv_maps = maps + self._q_bytes
            parameters.out = out
            parameters.lse = lse
            parameters.kv_lengths = kv_lengths
            parameters.counter = counter
            status = self._launch(
                self._function, self._grid, 1, 1, self._block, 1, 1, self._shared, stream, self._address, 0
            )
        if status[0]:
            refuse("cuLaunchKernel", status[0])


@cache
def load(cubin: bytes, entry: str, ordinal: int, shared_bytes: int) -> int:
    """The handle of a kernel, allowed its shared memory on one device. The device's context must be current."""
    cu = driver()
    kernel = ask(cu.cuLibraryGetKernel, _library(cubin), entry.encode())
    attribute = cu.CUfunction_attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    ask(cu.cuKernelSetAttribute, attribute, shared_bytes, kernel, ordinal)
    return int(kernel)


@cache
def _library(cubin: bytes) -> Any:
    """Machine code in the driver, for all devices; kept for good, as graphs may hold it."""
    return ask(driver().cuLibraryLoadData, cubin, [], [], 0, [], [], 0)


def is_capturing(stream: int) -> bool:
    """Whether work given to the stream goes into a graph."""
    status, found = driver().cuStreamIsCapturing(stream)
    if status:
        refuse("cuStreamIsCapturing", status)
    return bool(int(found))
