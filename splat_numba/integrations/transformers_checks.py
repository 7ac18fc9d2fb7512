"""Whether a pattern is what a mask function of transformers keeps: all pairs are compared, so that no guess passes.

A function and its lengths are compared once: what is known is remembered by the function's code and by the values that
its closure holds, tensors by their numbers. Where neither side depends on more than the distance of two tokens, squares
from the first token on are compared, so that other lengths are known too.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats.patterns import Pattern
from splat_numba.integrations import flex_masks
from splat_numba.runtime.recent import Recent

Bools: TypeAlias = NDArray[np.bool_]
_PAIRS = 2**20  # compared at once: of a few megabytes, caches and the allocator would make twice the time
_STEP = 1024  # tokens by which large squares grow: a new length costs a comparison once in so many
_known: Recent[bool] = Recent(1024)


class Asked(Protocol):
    """What is asked of a mask function; see transformers_masks.Asked."""

    @property
    def batch(self) -> int:
        """Entries."""

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Queries, keys, and the positions of the first ones."""

    @property
    def function(self) -> Callable[..., Any]:
        """Of transformers' own kind."""

    def kept(self, entries: range, q_idx: range, kv_idx: range) -> Bools:
        """Which pairs of positions are kept: (entries or 1, queries, keys), padding aside."""


def is_kept(asked: Asked, mask: Pattern, entries: range, rows: range, keys: range) -> bool:
    """Whether, in these batch entries and rows, the mask function keeps what ``mask`` does of ``keys``, both counted
    from their ends, and nothing behind them.
    """
    if not rows or not entries:
        return True
    held, by_numbers = fingerprint(asked.function)
    square = None if held is None or by_numbers else _square_of(asked, mask, rows, keys)
    if square is not None:
        inner, size = square
        return _remembered((held, inner, size, asked.batch), lambda: _squares_agree(asked, inner, size))
    key = None if held is None else (held, mask, asked.sizes, entries, rows, keys)
    return _remembered(key, lambda: _rows_agree(asked, mask, entries, rows, keys))


def _remembered(key: Hashable | None, compare: Callable[[], bool]) -> bool:
    found = None if key is None else _known.find(key)
    if found is None:
        found = compare()
        if key is not None:
            _known.keep(key, found)
    return found


def _square_of(asked: Asked, mask: Pattern, rows: range, keys: range) -> tuple[Pattern, int] | None:
    """The mask by distances alone, and the size of a square from the first position on that has the call in it."""
    inner = mask.pattern if isinstance(mask, nodes.AlignEnd) else mask
    seq_q, seq_kv, q_offset, kv_offset = asked.sizes
    same_distances = q_offset + rows.stop == kv_offset + keys.stop
    if not (same_distances or isinstance(inner, nodes.Full)) or not _by_distance(inner):
        return None
    if keys.stop < seq_kv and isinstance(inner, nodes.Full):
        return None  # keys behind the last one are kept in the square
    least = max(q_offset + seq_q, kv_offset + seq_kv)
    size = 1 << (least - 1).bit_length() if least <= _STEP else -(-least // _STEP) * _STEP
    # Else a few queries far from the first token are asked about, and the square would be far more.
    return (inner, size) if size <= max(_STEP, 2 * seq_q) else None


def _by_distance(mask: Pattern) -> bool:
    if isinstance(mask, (nodes.Union, nodes.Intersection)):
        return all(map(_by_distance, mask.parts))
    return isinstance(mask, (nodes.Full, nodes.Causal, nodes.Window))


def _squares_agree(asked: Asked, mask: Pattern, size: int) -> bool:
    """Of positions below ``size``, in every entry."""
    keeps = flex_masks.mask_function(mask, size, size)
    distances = torch.arange(size - 1, -size, -1)  # of a query from a key; each row of the square is a part of these
    kept = keeps(None, None, torch.full_like(distances, size), size - distances).numpy()
    rows = np.lib.stride_tricks.sliding_window_view(kept, size)[::-1]
    return all(
        _equal(asked.kept(range(asked.batch), chunk, range(size)), rows[chunk.start : chunk.stop])
        for chunk in _chunks(range(size), size)
    )


def _rows_agree(asked: Asked, mask: Pattern, entries: range, rows: range, keys: range) -> bool:
    """Of a call's own positions."""
    _, seq_kv, q_offset, kv_offset = asked.sizes
    keeps, columns = flex_masks.mask_function(mask, len(rows), len(keys)), torch.arange(len(keys))
    for chunk in _chunks(rows, seq_kv):
        at = torch.arange(chunk.start, chunk.stop)[:, None] - rows.start
        told = keeps(None, None, at, columns).expand(len(chunk), len(keys)).numpy()
        positions = range(chunk.start + q_offset, chunk.stop + q_offset)
        found = asked.kept(entries, positions, range(kv_offset, kv_offset + seq_kv))
        if not _equal(found[..., keys.start : keys.stop], told) or found[..., keys.stop :].any():
            return False
    return True


def _equal(found: Bools, told: Bools) -> bool:
    return all(np.array_equal(one, told) for one in found)


def _chunks(rows: range, seq_kv: int) -> Iterator[range]:
    step = max(1, _PAIRS // max(1, seq_kv))
    return (range(start, min(start + step, rows.stop)) for start in range(rows.start, rows.stop, step))


def fingerprint(held: Any) -> tuple[Hashable | None, bool]:
    """What a mask function's answers depend on, to be compared, and whether tensors are part of it.

    Functions: their code, with what their closures and defaults hold. None for what is not known to stay as it is.
    """
    if held is None or isinstance(held, (bool, int, float, str)):
        return (type(held).__name__, held), False
    if isinstance(held, torch.Tensor):
        numbers = held.detach().cpu().contiguous()
        digest = hashlib.sha256(numbers.view(torch.uint8).numpy().tobytes() if numbers.numel() else b"").digest()
        return (str(held.dtype), tuple(held.shape), digest), True
    if isinstance(held, (tuple, list)):
        return _of_several(type(held).__name__, held)
    code = getattr(held, "__code__", None)
    if code is None or hasattr(held, "__self__"):
        return None, False
    cells = [cell.cell_contents for cell in held.__closure__ or ()]
    return _of_several(code, [*cells, *(held.__defaults__ or ()), *(held.__kwdefaults__ or {}).values()])


def _of_several(name: Hashable, several: Any) -> tuple[Hashable | None, bool]:
    found = [fingerprint(one) for one in several]
    if any(key is None for key, _ in found):
        return None, False
    return (name, *(key for key, _ in found)), any(by_numbers for _, by_numbers in found)
