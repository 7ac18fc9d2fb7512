"""Calls that are like earlier ones: what was learned of those does them, without asking what they mean."""

from __future__ import annotations

from typing import Any

from splat_numba.executors.executor import Again
from splat_numba.runtime.recent import REMEMBERED, Recent, keep_among


class Known:
    """What was learned of calls, by all that they are beside their arrays. Calls that are like none, or are watched,
    are made as before.
    """

    def __init__(self) -> None:
        self._by_kind: Recent[tuple[Again, ...]] = Recent(REMEMBERED)
        self.glance = self._by_kind.glance

    def learn(self, options: tuple[Any, ...], arrays: tuple[Any, ...], again: Again | None) -> None:
        """Note a faster call for these options, and arrays as these. None where there is none."""
        if again is not None:
            keep_among(self._by_kind, (options, arrays[0].shape, arrays[1].shape), again)

    def call(self, options: tuple[Any, ...], arrays: tuple[Any, ...]) -> tuple[Any, ...] | None:
        """What a known call gives; None where none is like this one."""
        try:
            # By shapes, too: to try five calls in turn for five lengths takes longer than to look one up.
            several = self.glance((options, arrays[0].shape, arrays[1].shape)) or ()
        except (TypeError, AttributeError, RuntimeError):
            # Of a wrong type, or PyTorch's nested tensors, whose sizes raise: refused by name. Or a size is a symbol.
            return None
        for again in several:
            found = again(arrays)
            if found is not None:
                return found
        return None

    def clear(self) -> None:
        """Let go of everything."""
        self._by_kind.clear()
