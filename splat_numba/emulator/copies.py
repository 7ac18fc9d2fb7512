"""What the copy engine does: boxes of tensors, and bytes as they are, into shared memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.block import Block
from splat_numba.emulator.lanes import chosen, named
from splat_numba.emulator.memory import Who, aligned, swizzled
from splat_numba.errors import EmulationError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_values import lanes


class Copies:
    """Copies begin with the instruction and land when Block.land() has them land."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def tensor_copy(
        self, to: Any, tensor_map: Any, barrier: Any, dim: Any, c1: Any, c2: Any, head: Any, batch: Any, when: Any
    ) -> None:
        """A box for each chosen lane."""
        for target, number_at, place, *start in chosen(when, to, tensor_map, barrier, dim, c1, c2, head, batch):
            self._copy_box(target, number_at, place, tuple(int(np.uint32(c).astype(np.int32)) for c in start))

    def _copy_box(self, target: int, number_at: int, barrier: int, start: tuple[int, ...]) -> None:
        block = self._block
        one = block.maps[int(block.memory.read(number_at, 8).view(np.uint64)[0])]
        if target % 128:
            kind = "swizzled" if one.swizzled else "tensor"
            raise EmulationError(f"a {kind} copy wanted at a multiple of 128 bytes, got {target:#x}")
        width, unit = (64, 8) if one.swizzled else (4, 4)
        if one.box[0] != width or start[0] % unit:  # what hardware answers with illegal addresses and instructions
            raise EmulationError(
                f"a copy wanted of boxes {width} numbers wide, from a multiple of {unit}, "
                f"got {one.box[0]} from {start[0]}"
            )
        if number_at not in block.fenced_maps:
            raise EmulationError(f"a copy wanted by a tensor map after fence_tensor_map, got none of {number_at:#x}")
        block.barrier_of_copy(barrier)
        places = target + np.arange(_itemsize(one) * int(np.prod(one.box)))
        places = swizzled(places) if one.swizzled else places
        block.check_fenced(block.shared.check(places, _a_copy), _a_copy)
        warp = block.warp

        def copy() -> None:
            block.shared.store(places, fetch(block, one, start, warp), _a_copy)
            block.landed(barrier, places.size)

        block.land(copy)

    def bulk_copy(self, to: Any, source: Any, nbytes: Any, barrier: Any, when: Any) -> None:
        """Bytes for each chosen lane."""
        for target, address, size, place in chosen(when, to, source, nbytes, barrier):
            self._copy_bytes(target, address, size, place)

    def async_copy(self, to: Any, source: Any, when: Any) -> None:
        """16 bytes for each chosen lane, which land when they are waited for."""
        pairs = list(chosen(when, to, source))
        places, addresses = (np.array([pair[i] for pair in pairs], np.int64) for i in range(2))
        numbers = np.flatnonzero(lanes(when, np.uint32))
        by: Who = lambda bad: named(numbers[bad])  # noqa: E731
        aligned(places, 16, by)
        bytes_of = self._block.shared.check(places[:, None] + np.arange(16), by)
        found = self._block.memory.gather(addresses, 16, by)
        self._block.neighbours.hide(self._block.warp, addresses, found)
        self._block.copies[-1].append(lambda: self._block.store_shared(bytes_of, found))  # no engine: as lanes do

    def async_commit(self) -> None:
        """What was issued since is a group."""
        self._block.copies.append([])

    def async_wait(self, left: int) -> Callable[[], None]:
        """All groups but the last ``left`` are there after it."""

        def wait() -> None:
            copies = self._block.copies
            while len(copies) - 1 > left:
                for land in copies.pop(0):
                    land()
            self._block.changed()

        return wait

    def _copy_bytes(self, target: int, address: int, size: int, barrier: int) -> None:
        block = self._block
        if target % 16 or size % 16 or address % 16:
            raise EmulationError(f"a bulk copy wanted in multiples of 16, got {target:#x}, {address:#x}, {size}")
        block.barrier_of_copy(barrier)
        places, found = target + np.arange(size), block.memory.read(address, size).copy()
        block.neighbours.hide(block.warp, address, found)
        block.check_fenced(block.shared.check(places, _a_copy), _a_copy)

        def copy() -> None:
            block.shared.store(places, found, _a_copy)
            block.landed(barrier, size)

        block.land(copy)


def check_map(one: Any) -> None:
    """Raises EmulationError for a tensor map that cuTensorMapEncodeTiled refuses, used or not."""
    for name, wanted, numbers in (
        ("sizes", "of 1 to 2**32", [n for n in one.sizes if not 1 <= n <= 2**32]),
        ("strides", "multiples of 16 below 2**40", [n for n in one.strides if n % 16 or not 0 <= n < 2**40]),
        ("boxes", "of 1 to 256", [n for n in one.box if not 1 <= n <= 256]),
        ("addresses", "multiples of 16", [n for n in (one.pointer,) if n % 16]),
    ):
        if numbers:
            raise EmulationError(f"a tensor map wanted {name} {wanted}, got {', '.join(map(str, numbers))}")


def _a_copy(_bad: NDArray[np.bool_]) -> str:
    return "a copy"


def _itemsize(tensor_map: Any) -> int:
    return ITEMSIZE[tensor_map.dtype]


def fetch(block: Block, tensor_map: Any, start: tuple[int, ...], warp: int) -> NDArray[np.uint8]:
    """The bytes of a box whose least coordinates are ``start``, for a warp; zeros outside the tensor. Innermost axis
    first.
    """
    axes = [np.arange(first, first + size) for first, size in zip(start, tensor_map.box, strict=True)]
    size_of = _itemsize(tensor_map)
    steps = (size_of, *tensor_map.strides)
    inside, places = np.ones((1,) * 5, np.bool_), np.zeros((1,) * 5, np.int64)
    for axis, (index, size, step) in enumerate(zip(axes, tensor_map.sizes, steps, strict=True)):
        shape = [1] * 5
        shape[4 - axis] = index.size
        inside = inside & ((index >= 0) & (index < size)).reshape(shape)
        places = places + (index * step).reshape(shape)
    found = np.zeros((*places.shape, size_of), np.uint8)
    if inside.any():
        wanted = tensor_map.pointer + places[inside]
        buffer, base = block.memory.find(int(wanted.min()), int(wanted.max()) + size_of)
        numbers = buffer[(wanted - base)[:, None] + np.arange(size_of)]
        block.neighbours.hide(warp, wanted, numbers)
        found[inside] = numbers
    return found.reshape(-1)
