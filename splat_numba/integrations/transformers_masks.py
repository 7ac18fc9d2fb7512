"""The mask interface of transformers: recognised, verified and made into parts, or evaluated a few rows at a time.

One query a batch entry, as in decoding, is evaluated as it is: what it keeps is a range of keys nearly always, whatever
the mask. More queries are recognised (`transformers_terms`), and what was found is compared with the mask function,
all of it (`transformers_checks`); a mask that is not recognised, or differs, is evaluated into an ACSR an entry.

Padding is a range of keys an entry. Keys behind it are left out by kv_lengths; keys before it, with the queries there,
are cut off, which leaves distances from the end as they are. Padding with holes is evaluated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from splat_numba.arguments.masks import Mask
from splat_numba.formats import patterns
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.integrations.row_chunks import stored_by_rows
from splat_numba.integrations.transformers_checks import is_kept
from splat_numba.integrations.transformers_parts import Part, SplatMask
from splat_numba.integrations.transformers_terms import Terms, terms_of

_PAIRS = 2**22  # evaluated at once: a few bytes each, of the few steps that mask functions take

Bools = NDArray[np.bool_]
Piece = tuple[Mask, int, int, int]  # of an entry: mask, first row, first key, one past the last key


@dataclass(frozen=True, slots=True)
class Asked:
    """What transformers asks for: a mask function with the lengths and first positions of its queries and keys."""

    batch: int
    seq_q: int
    seq_kv: int
    q_offset: int
    kv_offset: int
    function: Callable[..., Any]
    by_vmap: bool
    device: Any

    @property
    def shift(self) -> int:
        """The key at the first query's position."""
        return self.q_offset - self.kv_offset

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """Queries, keys, and the positions of the first ones."""
        return self.seq_q, self.seq_kv, self.q_offset, self.kv_offset

    def rows(self, entries: range, rows: range) -> Bools:
        """What the mask function keeps of some queries of some entries: (entries, rows, seq_kv), padding aside."""
        q_idx = range(rows.start + self.q_offset, rows.stop + self.q_offset)
        found = self.kept(entries, q_idx, range(self.kv_offset, self.kv_offset + self.seq_kv))
        return np.broadcast_to(found, (len(entries), len(rows), self.seq_kv))

    def kept(self, entries: range, q_idx: range, kv_idx: range) -> Bools:
        """Which pairs of positions the mask function keeps: (entries or 1, queries, keys), padding aside."""
        at, rows, columns = (torch.arange(one.start, one.stop, device=self.device) for one in (entries, q_idx, kv_idx))
        head = torch.zeros(1, dtype=torch.int64, device=self.device)
        if self.by_vmap:
            found = _mapped(self.function)(at, head, rows, columns)
        else:
            found = self.function(at[:, None, None, None], head[:, None, None], rows[:, None], columns)
        alike = found.ndim < 4 or len(found) == 1  # entries are, where they have no axis
        kept: Bools = (
            found.expand(1 if alike else len(entries), 1, len(q_idx), len(kv_idx))[:, 0].to(torch.bool).cpu().numpy()
        )
        return kept


def _mapped(function: Callable[..., Any]) -> Callable[..., Any]:
    """For functions of single indices."""
    from torch._dynamo._trace_wrapped_higher_order_op import (
        TransformGetItemToIndex,
    )  # as transformers: vmap has no item()

    nested = function
    for axis in (3, 2, 1, 0):
        nested = torch.vmap(nested, in_dims=tuple(0 if one == axis else None for one in range(4)))

    def mapped(*given: Any) -> Any:
        with TransformGetItemToIndex():
            return nested(*given)

    return mapped


def splat_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: Any = 0,
    mask_function: Any = None,
    attention_mask: Any = None,
    use_vmap: bool = False,
    device: Any = "cpu",
    **_others: Any,  # hints for other interfaces: what may be skipped, dtypes, configs
) -> SplatMask:
    """The mask that a model of transformers asks for, as parts.

    batch_size, q_length, kv_length, q_offset, kv_offset, mask_function: as AttentionMaskInterface gives them;
    attention_mask: (batch_size, tokens), True for tokens, or None. Raises FormatError for a mask that no ACSR holds.
    """
    asked = Asked(
        batch_size, int(q_length), int(kv_length), int(q_offset), int(kv_offset), mask_function, use_vmap, device
    )
    with torch.no_grad():
        parts = parts_of(asked, _tokens(attention_mask, asked))
    return SplatMask.of(tuple(parts), (asked.batch, asked.seq_q, asked.seq_kv), device)


splat_mask._torchdynamo_disable = True  # type: ignore[attr-defined]  # noqa: SLF001 - as runtime.graphs marks its own


def _tokens(attention_mask: Any, asked: Asked) -> Bools | None:
    """Which keys are tokens, (batch, seq_kv); None where all are."""
    if attention_mask is None:
        return None
    given: Bools = attention_mask[:, asked.kv_offset :][:, : asked.seq_kv].to(torch.bool).cpu().numpy()
    missing = asked.seq_kv - given.shape[1]
    tokens = np.pad(given, ((0, 0), (0, missing))) if missing else given
    return None if tokens.all() else tokens


def parts_of(asked: Asked, tokens: Bools | None) -> list[Part]:
    """The parts of a mask. tokens: (batch, seq_kv), which keys are tokens; None where all are."""
    if asked.seq_q == 1:
        return _of_single_queries(asked, tokens)
    parts = _recognised(asked, tokens)
    return _evaluated(asked, tokens) if parts is None else parts


def _of_single_queries(asked: Asked, tokens: Bools | None) -> list[Part]:
    """One query an entry: a range of keys, or a stored row where it has holes."""
    kept = asked.rows(range(asked.batch), range(1))[:, 0]
    ranges = _ranges(kept if tokens is None else kept & tokens)
    if ranges is None:
        return _evaluated(asked, tokens)
    return _grouped([None if stop == 0 else (patterns.full(), 0, start, stop) for start, stop in ranges], 1)


def _ranges(kept: Bools) -> list[tuple[int, int]] | None:
    """The first and one past the last True of each row, (0, 0) for a row without; None where one has holes."""
    some = kept.any(1)
    starts = np.where(some, kept.argmax(1), 0)
    stops = np.where(some, kept.shape[1] - kept[:, ::-1].argmax(1), 0)
    if (kept.sum(1) != stops - starts).any():
        return None
    return list(zip(starts.tolist(), stops.tolist(), strict=True))


def _grouped(entries: Sequence[Piece | None], seq_q: int, end: int | None = None) -> list[Part]:
    """Parts of entries' pieces; None for an entry that attends to nothing.

    Neighbours that differ in the last key alone share a call. end: where keys end to count from, if not at the last.
    """
    parts = []
    for key, group in groupby(enumerate(entries), lambda pair: pair[1] and pair[1][:3]):
        members = list(group)
        if key is None:
            continue
        mask, row, start = key
        stops = [entry[3] for _, entry in members if entry is not None]
        stop = max(stops) if end is None else end
        lengths = None if min(stops) == stop else tuple(one - start for one in stops)
        place = members[0][0], members[-1][0] + 1
        parts.append(Part(place, (row, seq_q), (start, stop), mask, lengths))
    return parts


def _recognised(asked: Asked, tokens: Bools | None) -> list[Part] | None:
    """The parts of a mask that is known by name and agrees; None for another."""
    terms = terms_of(asked.function)
    pattern = None if terms is None else terms.pattern()
    if terms is None or pattern is None:
        return None
    end = asked.shift + asked.seq_q if terms.causal else asked.seq_kv  # keys from there on are in the future
    relative = pattern != patterns.full() or terms.documents is not None
    if end > asked.seq_kv or asked.shift < 0 or (relative and end != asked.shift + asked.seq_q):
        return None
    ranges = [(0, end)] * asked.batch if tokens is None else _ranges(tokens[:, :end])
    masks = None if ranges is None else _masks(asked, terms, pattern, ranges)
    if ranges is None or masks is None:
        return None
    found = [
        None if stop == 0 else (mask, max(0, start - asked.shift) if terms.causal else 0, start, stop)
        for mask, (start, stop) in zip(masks, ranges, strict=True)
    ]
    parts = _grouped(found, asked.seq_q, end)
    agreed = [
        isinstance(part.mask, Pattern)
        and is_kept(asked, part.mask, range(*part.entries), range(*part.rows), range(part.keys[0], end))
        for part in parts
    ]
    return parts if all(agreed) else None


def _masks(asked: Asked, terms: Terms, pattern: Pattern, ranges: list[tuple[int, int]]) -> list[Pattern] | None:
    """The pattern of every entry, counted from the end; None if chunks or documents do not begin where its keys do."""
    if terms.chunk:
        origins = terms.origins.tolist()
        if any(
            (asked.kv_offset + start - origin) % terms.chunk for (start, _), origin in zip(ranges, origins, strict=True)
        ):
            return None
    if terms.documents is None:
        return [pattern.align_end() if pattern != patterns.full() else pattern] * asked.batch
    if asked.shift or any(start for start, _ in ranges):
        return None
    lengths = [terms.lengths(entry) for entry in range(asked.batch)]
    fits = [one is not None and sum(one) == asked.seq_q == asked.seq_kv for one in lengths]
    if not all(fits):
        return None
    return [patterns.documents(one) & pattern for one in lengths if one is not None]


def _evaluated(asked: Asked, tokens: Bools | None) -> list[Part]:
    """The mask function's answers to all pairs, stored, an ACSR an entry; equal ones share it."""
    found: list[Piece | None] = []
    size = max(1, _PAIRS // max(1, asked.seq_kv))
    for entry in range(asked.batch):
        stored = stored_by_rows(asked.seq_q, asked.seq_kv, size, partial(_some, asked, tokens, entry, size))
        found.append((stored, 0, 0, asked.seq_kv))
    return _grouped(found, asked.seq_q)


def _some(asked: Asked, tokens: Bools | None, entry: int, size: int, start: int) -> Bools:
    """Rows start to start + size of an entry, padding left out."""
    kept: Bools = asked.rows(range(entry, entry + 1), range(start, min(start + size, asked.seq_q)))[0]
    return kept if tokens is None else kept & tokens[entry]


def parts_of_tensor(mask: Any) -> tuple[Part, ...]:
    """The parts of a bool tensor, (batch, 1 or heads, seq_q, seq_kv), that a user gave in place of a model's own."""
    dense: Bools = mask.cpu().numpy()
    found: list[Piece | None] = []
    for entry in dense:
        heads = tuple(ACSR.from_dense(head) for head in entry)
        found.append((heads[0] if len(heads) == 1 else heads, 0, 0, dense.shape[3]))
    return tuple(_grouped(found, dense.shape[2]))
