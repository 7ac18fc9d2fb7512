"""Calls made ready, and how they are found: by arrays as those of an earlier call but for their addresses."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from splat_numba.arguments.gpu_arrays import place_lengths
from splat_numba.gen.plans.problem import Problem
from splat_numba.runtime.cuda.arrays import Reach
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import Framework, known_keys
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.recent import Recent, keep_among

T = TypeVar("T")
Question = Callable[[Sequence[Any]], "list[int] | None"]


@dataclass(frozen=True, slots=True)
class ReadyArrays:
    """What a call is but for its addresses. axes: of the caller's q; reach: of the arrays given, see reach_of()."""

    call: ReadyCall
    problem: Problem
    axes: int
    device: Device
    reach: tuple[Reach, ...]

    def place_lengths(self, kv_lengths: Any, framework: Framework, like: Any, stream: int) -> tuple[int, Any]:
        """The address of the key lengths on the device, and what keeps them there."""
        return place_lengths(
            kv_lengths, self.problem, self.axes, self.device, framework, like, stream, self.call.settings
        )


class Alike(Generic[T]):
    """The ``size`` ready calls used last. An owner is what a call is beside its arrays."""

    def __init__(self, size: int) -> None:
        self._known: Recent[T] = Recent(size)
        self._quick: Recent[tuple[tuple[Question, T], ...]] = Recent(size)

    def find(
        self, owner: Hashable, arrays: Sequence[Any], framework: Framework
    ) -> tuple[T | None, list[int], Hashable] | None:
        """The ready call, None where there is none yet; the arrays' addresses; what to keep a call by. None instead of
        all where arrays cannot be told apart, or read.
        """
        for question, ready in self._quick.glance(owner) or ():
            places = question(arrays)
            if places is not None:
                return ready, places, None
        known = known_keys(arrays, framework)
        if known is None:
            return None
        places, kinds = known
        found = self._known.find((owner, kinds))
        question_of = None if found is None else framework.likeness(arrays)
        if found is not None and question_of is not None:
            keep_among(self._quick, owner, (question_of, found))
        return found, places, (owner, kinds)

    def keep(self, key: Hashable, ready: T) -> T:
        """Remember a call by what find() said."""
        return self._known.keep(key, ready)

    def clear(self) -> None:
        """Let go of everything."""
        self._known.clear()
        self._quick.clear()
