"""The launches of a plan's stages over arrays of known strides: told all addresses at once, then run in their order."""

from __future__ import annotations

import ctypes
import struct
import threading
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from flurka_numba.gpu.plan import ForwardPlan
from flurka_numba.gpu.stages import Stage
from splat_numba.gen.boxes import Box, View
from splat_numba.gen.entry import Entry
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.launch import Launch, load
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments, encode, tensor_map_arguments
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

if TYPE_CHECKING:
    from splat_numba.runtime.cuda.build import Cubin

MAPPED = ("k", "v", "proj_k", "proj_v", "x", "w_q")  # what stages fetch by tensor maps
STRIDED = ("q", "k", "v", "out")  # what stages read and write by address
OPERANDS = ("q", "k", "v", "proj_k", "proj_v", "out", "k_slots", "v_slots", "x", "w_q")
BETWEEN = ("parts", "tops", "states", "turned", "shares")  # arrays that one stage leaves to the next
PART_ALIGNMENT = 256  # of parts of an array; frameworks' allocators align the first one so

# The parameters that change from call to call. Stages share one list of them, of which each reads its own.
ADDRESSES = (*OPERANDS, "kv_lengths", "omega", *BETWEEN, "counters", *(f"{name}_map" for name in MAPPED))


def stride_numbers(layouts: Mapping[str, Layout]) -> dict[str, int]:
    """The parameters that are strides."""
    found: dict[str, int] = {}
    for name in STRIDED:
        steps = layouts[name].strides if name in layouts else ()
        found |= {f"{name}_{axis}": step % 2**64 for axis, step in zip(("batch", "head", "row"), steps, strict=False)}
    return found


def stage_numbers(stage: Stage, layouts: Mapping[str, Layout]) -> dict[str, int]:
    """The parameters of a stage that are no addresses, by name."""
    wanted = {name for name, _ in stage.entry.parameters}
    return stage.numbers | {name: step for name, step in stride_numbers(layouts).items() if name in wanted}


def stage_maps(
    plan: ForwardPlan, layouts: Mapping[str, Layout], places: Mapping[str, int], spare: int
) -> list[TensorMapArguments]:
    """The tensor maps of what has boxes, in their order. spare: a valid device address."""
    return [box_arguments(places[name], layouts[name], rows, spare) for name, rows in plan.boxes.items()]


def box_arguments(pointer: int, layout: Layout, rows: int, spare: int) -> TensorMapArguments:
    """The tensor map of an array for copies of so many rows of one head. spare: a valid device address."""
    seq = layout.sizes[2]
    return tensor_map_arguments(View(0, 1, seq, max(seq, 1), 1), Box(rows), pointer, layout, spare)


def map_offsets(plan: ForwardPlan) -> dict[str, int]:
    """Where stage_maps() stand, in bytes, by their parameters' names."""
    return {f"{name}_map": MAP_BYTES * number for number, name in enumerate(plan.boxes)}


@lru_cache(maxsize=1024)
def starts_of(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """Where parts of so many bytes start in one array, and its size at the end."""
    return tuple(accumulate((-(-size // PART_ALIGNMENT) * PART_ALIGNMENT for size in sizes), initial=0))


def machine_code(plan: ForwardPlan, settings: Settings) -> list[Cubin]:
    """Of every stage, remembered. Raises BackendError without the compiler."""
    return [stage_cubin(one.name, one.render(), one.entry, settings) for one in plan.stages]


@lru_cache(maxsize=256)
def stage_cubin(name: str, text: str, entry: Entry, settings: Settings) -> Cubin:
    """A stage's machine code, remembered, or from disk, or compiled."""
    from splat_numba.runtime.cuda.build import build

    return build(KernelSource.of(name, text), entry, settings)


class StageLaunches:
    """A plan's launches, ready but for ADDRESSES. layouts: of the arrays as the stages find them, copied or not.

    The device's context must be current, here and in run().
    """

    def __init__(
        self, plan: ForwardPlan, cubins: Sequence[Cubin], layouts: Mapping[str, Layout], device: Device
    ) -> None:
        self.plan = plan
        self.layouts = layouts
        self.identity = object()  # of tensor maps made for these layouts
        self._lock = threading.Lock()
        self._addresses = (ctypes.c_uint64 * len(ADDRESSES))()
        self._write = struct.Struct(f"={len(ADDRESSES)}Q").pack_into
        start = ctypes.addressof(self._addresses)
        places = {name: start + 8 * number for number, name in enumerate(ADDRESSES)}
        used = [(stage, cubin) for stage, cubin in zip(plan.stages, cubins, strict=True) if stage.grid]
        # The first never overlaps: what came before it on the stream is not ours.
        self._launches = tuple(
            Launch(
                load(cubin.code, cubin.report.symbol, device.ordinal, stage.entry.shared_bytes),
                stage.entry,
                stage.grid,
                stage_numbers(stage, layouts),
                places,
                overlaps=number > 0 and stage.entry.overlaps,
            )
            for number, (stage, cubin) in enumerate(used)
        )

    def run(self, stream: int, *addresses: int) -> None:
        """Launch every stage. addresses: all of ADDRESSES, 0 where a plan has none."""
        with self._lock:  # the driver copies the addresses before a launch returns
            self._write(self._addresses, 0, *addresses)
            for launch in self._launches:
                launch.run(stream)

    def encode(self, places: Mapping[str, int], spare: int) -> NDArray[np.uint64]:
        """stage_maps(), as the copy engine takes them."""
        return np.concatenate([encode(one) for one in stage_maps(self.plan, self.layouts, places, spare)])
