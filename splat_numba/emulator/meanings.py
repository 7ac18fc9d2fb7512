"""What every instruction of gen.instructions does, on NumPy: vectors of 32 lanes, or a number where all lanes agree."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.block import LANES, SHARED_START, Barrier, Block
from splat_numba.errors import EmulationError

Words = NDArray[np.uint32]
Reals = NDArray[np.float32]
Functions = dict[str, Callable[..., Any]]
LANE = np.arange(LANES)


def lanes(value: Any, dtype: Any) -> NDArray[Any]:
    """A number for each lane."""
    return np.broadcast_to(np.asarray(value, dtype), (LANES,))


def leaders(value: Any) -> int:
    """How many lanes a predicate is set for."""
    return int((lanes(value, np.uint32) != 0).sum())


def swizzled(places: Any) -> NDArray[np.int64]:
    """Where the 128-byte swizzle puts bytes of shared memory: bits 7-9 of the address turn bits 4-6 over."""
    logical = np.asarray(places, np.int64)
    found: NDArray[np.int64] = logical ^ (((logical >> 7) & 7) << 4)
    return found


def widen(halves: NDArray[np.uint16], dtype: str) -> Reals:
    """16-bit numbers as float32."""
    if dtype == "float16":
        return halves.view(np.float16).astype(np.float32)
    return (halves.astype(np.uint32) << np.uint32(16)).view(np.float32)


def narrowed(values: Any, dtype: str) -> Words:
    """float32 numbers rounded to 16 bits, to nearest even, as uint32."""
    reals = lanes(values, np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        if dtype == "float16":
            return reals.astype(np.float16).view(np.uint16).astype(np.uint32)
        word = reals.view(np.uint32)
        rounded = word + np.uint32(0x7FFF) + ((word >> np.uint32(16)) & np.uint32(1))
    found: Words = np.where(np.isnan(reals), np.uint32(0x7FFF), rounded >> np.uint32(16)).astype(np.uint32)
    return found


def meanings(block: Block, warps: int) -> SimpleNamespace:
    """The instructions as functions, for the warps of one block: what a text calls ``ptx``."""
    given: Functions = {}
    _places(given, block)
    _barriers(given, block, warps)
    _copies(given, block)
    _products(given, block)
    _numbers(given)
    _lanes(given)
    _accesses(given, block)
    return SimpleNamespace(**given)


def _places(given: Functions, block: Block) -> None:
    """Where a thread is; registers, of which there are enough here."""
    given["thread_index"] = lambda: (block.warp * LANES + LANE).astype(np.uint32)
    given["block_index"] = lambda: np.uint32(block.index)
    given["grid_size"] = lambda: np.uint32(block.grid)
    given["shared_address"] = lambda _array: np.uint32(SHARED_START)
    for name in ("claim_registers", "release_registers"):
        given[name] = lambda _count: lambda: None


def _barriers(given: Functions, block: Block, warps: int) -> None:
    """Barriers; fences, which mean nothing where every access is done when the next begins."""

    def init(address: Any, count: Any) -> None:
        block.barriers[int(np.max(address))] = Barrier(int(count), int(count))

    def arrive(address: Any, when: Any) -> None:
        if times := leaders(when):
            block.arrive(address, times)
            block.linger()

    def expect(address: Any, nbytes: Any, when: Any) -> None:
        if times := leaders(when):
            block.arrive(address, times, int(nbytes) * times)

    def wait(address: Any, parity: Any) -> None:
        one, wanted = block.barrier(address), int(np.max(parity))
        block.wait(lambda: one.phase != wanted, f"mbarrier {int(np.max(address)):#x}, parity {wanted}")

    given.update(mbarrier_init=init, mbarrier_arrive=arrive, mbarrier_expect=expect, mbarrier_wait=wait)
    given["block_barrier"] = lambda: block.meet(warps)
    for name in ("warp_barrier", "fence_mbarrier_init", "fence_shared", "fence_device", "wgmma_fence"):
        given[name] = lambda: None
    given["fence_tensor_map"] = lambda _address: None


def _copies(given: Functions, block: Block) -> None:
    """What the copy engine does."""

    def tensor_copy(to: Any, tensor_map: Any, barrier: Any, *rest: Any) -> None:
        *corner, when = rest
        if not leaders(when):
            return
        one = block.maps[int(block.memory.read(int(tensor_map), 8).view(np.uint64)[0])]
        start = tuple(int(np.uint32(c).astype(np.int32)) for c in corner)
        target = int(np.max(to))
        if target % 128:
            raise EmulationError(f"a swizzled copy wanted at a multiple of 128 bytes, got {target:#x}")

        def copy() -> None:
            box = fetch(block, one, start)
            block.shared.store(swizzled(target + np.arange(box.size)), box)
            block.landed(barrier, box.size)

        block.land(copy)

    def bulk_copy(to: Any, source: Any, nbytes: Any, barrier: Any, when: Any) -> None:
        if not leaders(when):
            return
        target, size, address = int(np.max(to)), int(nbytes), int(source)
        if target % 16 or size % 16 or address % 16:
            raise EmulationError(f"a bulk copy wanted in multiples of 16, got {target:#x}, {address:#x}, {size}")

        def copy() -> None:
            block.shared.store(target + np.arange(size), block.memory.read(address, size))
            block.landed(barrier, size)

        block.land(copy)

    given.update(tensor_copy=tensor_copy, bulk_copy=bulk_copy)


def _products(given: Functions, block: Block) -> None:
    """Matrix products. They happen as late as they may, when they are waited for, and read their operands then."""

    def finish(groups_left: int) -> None:
        block.linger()
        pending = block.pending
        while len(pending) - 1 > groups_left:
            for product in pending.pop(0):
                product()

    def matrix_product(columns: int, dtype: str, *, from_registers: bool, transposed: bool) -> Callable[..., None]:
        def issue(accumulator: Any, *operands: Any) -> None:
            rows = np.arange(16 * (block.warp % 4), 16 * (block.warp % 4) + 16)

            def product() -> None:
                if from_registers:
                    a, where, add = words_of_a(operands[:4], dtype), int(np.max(operands[4])), True
                else:
                    a = rows_of(block, int(np.max(operands[0])), rows, dtype)
                    where, add = int(np.max(operands[1])), bool(np.max(operands[2]))
                if transposed:
                    b = columns_of(block, where, columns, dtype)
                else:
                    b = rows_of(block, where, np.arange(columns), dtype).T
                sums = spread(a @ b)
                accumulator[...] = accumulator + sums if add else sums

            block.pending[-1].append(product)

        return issue

    given["wgmma_commit"] = lambda: block.pending.append([])
    given["wgmma_wait_all"] = lambda: finish(0)
    given["wgmma_wait_but_one"] = lambda: finish(1)
    given["matrix_product"] = matrix_product


def _numbers(given: Functions) -> None:
    def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
        def run(*operands: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*(np.asarray(one, np.float32) for one in operands))

        return run

    given["exp2"] = quiet(np.exp2)
    given["log2"] = quiet(np.log2)
    given["reciprocal"] = quiet(np.reciprocal)
    given["square_root"] = quiet(np.sqrt)
    given["sine_cosine"] = quiet(lambda x: tuple(f(np.float64(x)).astype(np.float32) for f in (np.sin, np.cos)))
    given["maximum"] = quiet(np.fmax)
    given["select"] = lambda first, second, when: np.where(np.asarray(when) != 0, first, second)
    given["select_real"] = given["select"]
    for dtype in ("bfloat16", "float16"):
        given[f"pack_{dtype}"] = lambda low, high, dtype=dtype: (
            narrowed(low, dtype) | (narrowed(high, dtype) << np.uint32(16))
        )

        def unpack(word: Any, dtype: str = dtype) -> tuple[Reals, Reals]:
            words = lanes(word, np.uint32)
            low, high = (words & np.uint32(0xFFFF)).astype(np.uint16), (words >> np.uint32(16)).astype(np.uint16)
            return widen(low, dtype), widen(high, dtype)

        given[f"unpack_{dtype}"] = unpack


def _lanes(given: Functions) -> None:
    given["shuffle_xor"] = lambda value, mask: lanes(value, np.float32)[LANE ^ int(mask)]
    given["shuffle_xor_word"] = lambda value, mask: lanes(value, np.uint32)[LANE ^ int(mask)]
    given["any_lane"] = lambda value: np.uint32(lanes(value, np.uint32).any())
    given["word_of_lane"] = lambda value, lane: lanes(value, np.uint32)[int(lane)]


def _accesses(given: Functions, block: Block) -> None:
    """Loads and stores; shared addresses are bytes from the start of the block's shared memory."""

    def load(addresses: Any, words: int) -> Any:
        found = block.memory.gather(addresses, 4 * words).view(np.uint32)
        return found[..., 0] if words == 1 else tuple(found[..., i] for i in range(words))

    given["load_word"] = given["load_pair"] = lambda address: load(address, 1)
    given["load_words4"] = lambda address: load(address, 4)
    given["load_state"] = lambda address: np.asarray(load(address, 1)).view(np.float32)

    def load_reals(address: Any) -> Any:
        return tuple(one.view(np.float32) for one in load(address, 4))

    def load_when(address: Any, when: Any, words: int = 4) -> Any:
        chosen = lanes(when, np.uint32) != 0
        found = np.zeros((LANES, words), np.uint32)
        if chosen.any():
            found[chosen] = block.memory.gather(lanes(address, np.uint64)[chosen], 4 * words).view(np.uint32)
        return tuple(found[:, i].copy() for i in range(words))

    given["load_reals4"] = load_reals
    given["load_words4_when"] = load_when
    given["load_real_when"] = lambda address, when: load_when(address, when, 1)[0].view(np.float32)

    def store(addresses: Any, values: tuple[Any, ...], when: Any, dtype: Any = np.uint32) -> None:
        data = np.stack([lanes(value, dtype).view(np.uint32) for value in values], axis=-1)
        block.memory.scatter(
            lanes(addresses, np.uint64), np.ascontiguousarray(data).view(np.uint8), lanes(when, np.uint32)
        )

    given["store_word"] = lambda address, value, when: store(address, (value,), when)
    given["store_words4"] = lambda address, a, b, c, d, when: store(address, (a, b, c, d), when)
    given["store_real"] = lambda address, value, when: store(address, (value,), when, np.float32)

    given["store_reals4"] = lambda address, a, b, c, d, when: store(address, (a, b, c, d), when, np.float32)
    given["store_reals2"] = lambda address, a, b, when: store(address, (a, b), when, np.float32)

    def fetch_add(address: Any, value: Any, when: Any) -> Words:
        before = np.zeros(LANES, np.uint32)
        for lane in np.flatnonzero(lanes(when, np.uint32)):
            word = block.memory.read(int(np.max(address)), 4).view(np.uint32)
            before[lane] = word[0]
            word += np.uint32(value)
        return before

    given["fetch_add"] = fetch_add

    def load_shared(address: Any, words: int) -> Any:
        places = np.asarray(address, np.int64)[..., None] + np.arange(4 * words)
        found = np.ascontiguousarray(block.shared.load(places)).view(np.uint32)
        return found[..., 0] if words == 1 else tuple(found[..., i] for i in range(words))

    given["load_shared_word"] = lambda address: load_shared(address, 1)
    given["load_shared_words4"] = lambda address: load_shared(address, 4)

    given["load_shared_reals4"] = lambda address: tuple(
        np.ascontiguousarray(one).view(np.float32) for one in load_shared(address, 4)
    )

    def store_shared(address: Any, values: tuple[Any, ...], when: Any, dtype: Any = np.uint32) -> None:
        data = np.stack([lanes(value, dtype).view(np.uint32) for value in values], axis=-1)
        chosen = np.flatnonzero(lanes(when, np.uint32))
        places = lanes(address, np.int64)[chosen, None] + np.arange(4 * len(values))
        block.shared.store(places, np.ascontiguousarray(data[chosen]).view(np.uint8))
        block.changed()

    given["store_shared_word"] = lambda address, value, when: store_shared(address, (value,), when)
    given["store_shared_words4"] = lambda address, a, b, c, d, when: store_shared(address, (a, b, c, d), when)
    given["store_shared_reals4"] = lambda address, a, b, c, d, when: store_shared(
        address, (a, b, c, d), when, np.float32
    )


def fetch(block: Block, tensor_map: Any, start: tuple[int, ...]) -> NDArray[np.uint8]:
    """The bytes of a box whose least coordinates are ``start``; zeros outside the tensor. Innermost axis first."""
    axes = [np.arange(first, first + size) for first, size in zip(start, tensor_map.box, strict=True)]
    steps = (2, *tensor_map.strides)
    inside, places = np.ones((1,) * 5, np.bool_), np.zeros((1,) * 5, np.int64)
    for axis, (index, size, step) in enumerate(zip(axes, tensor_map.sizes, steps, strict=True)):
        shape = [1] * 5
        shape[4 - axis] = index.size
        inside = inside & ((index >= 0) & (index < size)).reshape(shape)
        places = places + (index * step).reshape(shape)
    found = np.zeros((*places.shape, 2), np.uint8)
    if inside.any():
        wanted = tensor_map.pointer + places[inside]
        buffer, base = block.memory.find(int(wanted.min()), int(wanted.max()) + 2)
        found[inside] = buffer[(wanted - base)[:, None] + np.arange(2)]
    return found.reshape(-1)


def _halves(block: Block, places: NDArray[np.int64], dtype: str) -> Reals:
    """16-bit numbers at logical places of swizzled tiles."""
    found = block.shared.load(swizzled(places)[..., None] + np.arange(2))
    return widen(np.ascontiguousarray(found).view(np.uint16)[..., 0], dtype)


def _descriptor(descriptor: int) -> tuple[int, int, int]:
    """Start, leading and stride offset in bytes. Raises EmulationError for another layout than the 128-byte swizzle."""
    if descriptor >> 62 != 1:
        raise EmulationError(f"descriptor wanted with the 128-byte swizzle, got {descriptor:#x}")
    return (descriptor & 0x3FFF) << 4, (descriptor >> 16 & 0x3FFF) << 4, (descriptor >> 32 & 0x3FFF) << 4


def rows_of(block: Block, descriptor: int, rows: NDArray[np.int64], dtype: str) -> Reals:
    """(rows, 16) numbers of a tile that is stored row by row."""
    start, _, stride = _descriptor(descriptor)
    places = start + (rows // 8 * stride + rows % 8 * 128)[:, None] + 2 * np.arange(16)
    return _halves(block, places, dtype)


def columns_of(block: Block, descriptor: int, columns: int, dtype: str) -> Reals:
    """(16, columns) numbers of a tile whose columns stand together, 64 in a span."""
    start, leading, stride = _descriptor(descriptor)
    row, column = np.arange(16)[:, None], np.arange(columns)
    places = start + row // 8 * stride + row % 8 * 128 + column // 64 * leading + column % 64 * 2
    return _halves(block, places, dtype)


def words_of_a(words: tuple[Any, ...], dtype: str) -> Reals:
    """(16, 16) numbers of a warp's left operand from its four words a lane."""
    a = np.zeros((16, 16), np.float32)
    for i, word in enumerate(words):
        bits = lanes(word, np.uint32)
        for x in range(2):
            half = ((bits >> np.uint32(16 * x)) & np.uint32(0xFFFF)).astype(np.uint16)
            a[LANE // 4 + 8 * (i % 2), 8 * (i // 2) + 2 * (LANE % 4) + x] = widen(half, dtype)
    return a


def spread(sums: Reals) -> Reals:
    """A warp's (16, columns) sums as its accumulators, (columns / 2, lanes)."""
    columns = sums.shape[1]
    found = np.empty((columns // 2, LANES), np.float32)
    for j in range(columns // 8):
        for r in range(2):
            for x in range(2):
                found[4 * j + 2 * r + x] = sums[LANE // 4 + 8 * r, 8 * j + 2 * (LANE % 4) + x]
    return found
