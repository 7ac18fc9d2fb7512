"""Who makes which gradients in a launch, and which heads on the other side they want."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Owners:
    """Heads whose gradients a launch makes, and of each the heads on the other side, one after the other."""

    heads: tuple[int, ...]
    others: tuple[tuple[int, ...], ...]

    @property
    def tables(self) -> dict[str, NDArray[np.int32]]:
        """owners: (head, first, end, 0) of each; heads: of all of them, (others,)."""
        ends = np.cumsum([len(one) for one in self.others], dtype=np.int64)
        rows = [
            (head, end - len(one), end, 0)
            for head, end, one in zip(self.heads, ends.tolist(), self.others, strict=True)
        ]
        flat = [head for one in self.others for head in one]
        return {"owners": np.array(rows, np.int32).reshape(-1, 4), "heads": np.array(flat, np.int32)}

    def only(self, kept: Sequence[bool]) -> Owners:
        """Some of them."""
        chosen = [number for number, one in enumerate(kept) if one]
        return Owners(tuple(self.heads[i] for i in chosen), tuple(self.others[i] for i in chosen))


def owners_of(heads: Sequence[int], group: int, *, of_queries: bool) -> Owners:
    """Query heads with their key head each; or key heads with those of these query heads that share them."""
    if of_queries:
        return Owners(tuple(heads), tuple((head // group,) for head in heads))
    mine = tuple(dict.fromkeys(head // group for head in heads))
    return Owners(mine, tuple(tuple(head for head in heads if head // group == key) for key in mine))
