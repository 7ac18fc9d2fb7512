"""Loads and stores of the lanes, in global and in shared memory."""

from __future__ import annotations

from typing import Any

import numpy as np

from splat_numba.emulator.block import Block
from splat_numba.emulator.lanes import named, who
from splat_numba.emulator.memory import Bytes, Who, aligned
from splat_numba.gen.language.lane_values import LANE, LANES, Words, lanes


class Accesses:
    """Shared addresses are bytes from the start of the block's shared memory."""

    def __init__(self, block: Block) -> None:
        self._block = block

    def load_word(self, address: Any) -> Any:
        """4 bytes."""
        return self._load(address, 1)

    load_pair = load_word

    def load_words4(self, address: Any) -> Any:
        """16 bytes."""
        return self._load(address, 4)

    def load_words4_when(self, address: Any, when: Any) -> Any:
        """16 bytes, zeros for a lane that is not chosen."""
        return _words(self._load_when(address, when, 16))

    def load_real_when(self, address: Any, when: Any) -> Any:
        """4 bytes as a float32, likewise."""
        return np.ascontiguousarray(_words(self._load_when(address, when, 4))).view(np.float32)

    def _load_when(self, address: Any, when: Any, nbytes: int) -> Bytes:
        chosen = np.flatnonzero(lanes(when, np.uint32))
        found = np.zeros((LANES, nbytes), np.uint8)
        if chosen.size:
            by: Who = lambda bad: named(chosen[bad])  # noqa: E731
            found[chosen] = self._gather(lanes(address, np.uint64)[chosen], nbytes, by)
        return found

    def load_reals4(self, address: Any) -> Any:
        """16 bytes as float32."""
        return _reals(self._load(address, 4))

    def load_state(self, address: Any) -> Any:
        """4 bytes as a float32."""
        return np.asarray(self._load(address, 1)).view(np.float32)

    def _load(self, address: Any, words: int) -> Any:
        return _words(self._gather(address, 4 * words))

    def _gather(self, address: Any, nbytes: int, by: Who = who) -> Bytes:
        found = self._block.memory.gather(address, nbytes, by)
        self._block.neighbours.hide(self._block.warp, address, found)
        return found

    def store_word(self, address: Any, value: Any, when: Any) -> None:
        """4 bytes."""
        self._store(address, _bytes(value), when)

    def store_half(self, address: Any, value: Any, when: Any) -> None:
        """2 bytes, the lower ones of the word."""
        self._store(address, _bytes(value)[:, :2], when)

    def store_words4(self, address: Any, a: Any, b: Any, c: Any, d: Any, when: Any) -> None:
        """16 bytes."""
        self._store(address, _bytes(a, b, c, d), when)

    def store_real(self, address: Any, value: Any, when: Any) -> None:
        """4 bytes."""
        self._store(address, _bytes(lanes(value, np.float32).view(np.uint32)), when)

    def store_reals2(self, address: Any, a: Any, b: Any, when: Any) -> None:
        """8 bytes."""
        self._store(address, _bytes(*_as_words(a, b)), when)

    def store_reals4(self, address: Any, a: Any, b: Any, c: Any, d: Any, when: Any) -> None:
        """16 bytes."""
        self._store(address, _bytes(*_as_words(a, b, c, d)), when)

    def _store(self, address: Any, data: Bytes, when: Any) -> None:
        places, chosen = lanes(address, np.int64), np.flatnonzero(lanes(when, np.uint32))
        self._block.memory.scatter(places, data, lanes(when, np.uint32))
        self._block.neighbours.store(self._block.warp, places[chosen], data.shape[-1])

    def fetch_add(self, address: Any, value: Any, when: Any) -> Words:
        """The word from before, for one lane after the other; 0 for a lane that is not chosen."""
        before = np.zeros(LANES, np.uint32)
        places, added, chosen = lanes(address, np.uint64), lanes(value, np.uint32), lanes(when, np.uint32) != 0
        for lane in np.flatnonzero(chosen):
            alone = chosen & (np.arange(LANES) == lane)
            before[lane] = _words(self._block.memory.gather(places[lane], 4))
            self._block.memory.scatter(places, _bytes(before + added), alone)
            self._block.neighbours.atomic(self._block.warp, int(places[lane]))
        return before

    def load_shared_word(self, address: Any) -> Any:
        """4 bytes."""
        return self._load_shared(address, 1)

    def load_shared_words4(self, address: Any) -> Any:
        """16 bytes."""
        return self._load_shared(address, 4)

    def load_shared_reals2(self, address: Any) -> Any:
        """8 bytes as float32."""
        return _reals(self._load_shared(address, 2))

    def load_shared_reals4(self, address: Any) -> Any:
        """16 bytes as float32."""
        return _reals(self._load_shared(address, 4))

    def _load_shared(self, address: Any, words: int) -> Any:
        places = aligned(np.asarray(address, np.int64), 4 * words)
        return _words(self._block.shared.load(places[..., None] + np.arange(4 * words)))

    def load_matrices(self, address: Any) -> tuple[Words, ...]:
        """A row of a matrix for each lane, its numbers handed to four of them."""
        return tuple(self._matrices(address)[:, LANE // 4, LANE % 4])

    def load_matrices_transposed(self, address: Any) -> tuple[Words, ...]:
        """The same, of columns."""
        halves = self._matrices(address).view(np.uint16)
        pairs = np.stack([halves[:, 2 * (LANE % 4) + x, LANE // 4] for x in range(2)], axis=-1)
        return tuple(pairs.view(np.uint32)[..., 0])

    def _matrices(self, address: Any) -> Words:
        """(matrix, row, word)."""
        places = aligned(lanes(address, np.int64), 16)[:, None] + np.arange(16)
        return self._block.shared.load(places).view(np.uint32).reshape(4, 8, 4)

    def store_shared_word(self, address: Any, value: Any, when: Any) -> None:
        """4 bytes."""
        self._store_shared(address, _bytes(value), when)

    def store_shared_words4(self, address: Any, a: Any, b: Any, c: Any, d: Any, when: Any) -> None:
        """16 bytes."""
        self._store_shared(address, _bytes(a, b, c, d), when)

    def store_shared_reals4(self, address: Any, a: Any, b: Any, c: Any, d: Any, when: Any) -> None:
        """16 bytes."""
        self._store_shared(address, _bytes(*_as_words(a, b, c, d)), when)

    def _store_shared(self, address: Any, data: Bytes, when: Any) -> None:
        nbytes = data.shape[-1]
        chosen = np.flatnonzero(lanes(when, np.uint32))
        places = lanes(address, np.int64)[chosen]
        by: Who = lambda bad: named(chosen[bad])  # noqa: E731
        aligned(places, nbytes, by)
        self._block.store_shared(places[:, None] + np.arange(nbytes), data[chosen], by)
        self._block.changed()


def _as_words(*numbers: Any) -> list[Words]:
    return [lanes(one, np.float32).view(np.uint32) for one in numbers]


def _reals(words: Any) -> Any:
    return tuple(np.ascontiguousarray(one).view(np.float32) for one in words)


def _bytes(*words: Any) -> Bytes:
    """Each lane's words as (lanes, bytes)."""
    return np.stack([lanes(word, np.uint32) for word in words], axis=-1).view(np.uint8)


def _words(found: Bytes) -> Any:
    """One word a lane, or a tuple of them."""
    words = np.ascontiguousarray(found).view(np.uint32)
    return words[..., 0] if words.shape[-1] == 1 else tuple(words[..., i] for i in range(words.shape[-1]))
