"""Schedule: what a target makes of a plan, launches over named buffers in their order. A value: any machine may run it.

Nothing here is an address or an array of a framework. A machine (runtime.cuda.ready, emulator.machine) is given the
addresses of a schedule's arguments; tables, scratch memory and counters are its own business.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.tensor import Axes, Tensor, padded_bytes, padded_strides
from splat_numba.gen.schedules.tensor_map import BoxMap

SCRATCH, COUNTERS = "scratch", "counters"  # buffers that every machine has
PART_ALIGNMENT = 256  # of parts of the scratch memory, whose start frameworks align so


class Text(Protocol):
    """A kernel, but for its machine code. Hashable: equal texts share that."""

    @property
    def name(self) -> str:
        """Readable in a profile and in the cache's folder."""

    @property
    def entry(self) -> Entry:
        """How it is called."""

    def render(self) -> str:
        """Python source. Pure and deterministic."""

    def __hash__(self) -> int:
        """Of what makes it."""


@dataclass(frozen=True, slots=True)
class EmittedText:
    """A text that is emit(*traits)."""

    name: str
    entry: Entry
    emit: Callable[..., str]
    traits: tuple[Hashable, ...]

    def render(self) -> str:
        """Python source."""
        return self.emit(*self.traits)


class Place(NamedTuple):
    """Bytes behind the start of a buffer."""

    buffer: str
    offset: int = 0

    def plus(self, nbytes: int) -> Place:
        """So many bytes on."""
        return Place(self.buffer, self.offset + nbytes)


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One launch. numbers, pointers, maps: all parameters of the entry, each by its name in one of them; of maps the
    parameter is the first one's address, and the others follow it. overlaps: it may begin before the launch before it
    has ended, for whose results its text waits.
    """

    text: Text
    grid: int
    numbers: Mapping[str, int | float]
    pointers: Mapping[str, Place]
    maps: Mapping[str, tuple[BoxMap, ...]]
    overlaps: bool = False


@dataclass(frozen=True, slots=True)
class InPlace:
    """When an array need not be copied: never, unless ``fits``, and where its address is a multiple of alignment."""

    fits: bool
    alignment: int


def copied_of(rules: Mapping[str, InPlace]) -> frozenset[str]:
    """The arrays that are copied wherever they are."""
    return frozenset(name for name, rule in rules.items() if not rule.fits)


@dataclass(frozen=True, slots=True, eq=False)
class Schedule:
    """arguments: buffers whose addresses come with every call. tables: constant ones. scratch: bytes that steps may use
    and leave behind as they like; counters: 32-bit words that are 0 before and after.
    """

    steps: tuple[Step, ...]
    arguments: tuple[str, ...]
    tables: Mapping[str, NDArray[Any]]
    scratch: int
    counters: int


class ScheduleBuilder:
    """Collects steps; scratch memory that was released may be given again, as steps follow each other. copying: adds
    the launch of target[...] = source[...], between any strides.
    """

    def __init__(
        self, *arguments: str, copying: Callable[[ScheduleBuilder, Tensor, Tensor], None] | None = None
    ) -> None:
        self._arguments = list(arguments)
        self._copying = copying
        self._steps: list[Step] = []
        self._overlapped = False  # whether a launch may begin before the last one has ended
        self._copies: dict[Tensor, Tensor] = {}
        self._tables: dict[str, NDArray[Any]] = {}
        self._taken: list[tuple[int, int]] = []  # (start, end) of scratch memory, in order
        self._scratch = self._counters = 0
        self._apart = ""

    def argument(self, name: str) -> Place:
        """One more buffer whose address comes with every call."""
        if name not in self._arguments:
            self._arguments.append(name)
        return Place(name)

    def scratch(self, nbytes: int) -> Place:
        """Memory between steps, aligned to 256 bytes: the first gap that is large enough."""
        size = part_bytes(nbytes)
        start, at = 0, 0
        for at, (taken, end) in enumerate((*self._taken, (self._scratch + size, 0))):  # noqa: B007 - used below
            if taken - start >= size:
                break
            start = end
        self._taken.insert(at, (start, start + size))
        self._scratch = max(self._scratch, start + size)
        return Place(SCRATCH, start)

    def release(self, place: Place) -> None:
        """Give scratch memory back: no later step wants what is in it."""
        self._taken = [part for part in self._taken if part[0] != place.offset]

    def tensor(self, sizes: Axes, dtype: str) -> Tensor:
        """A scratch array with padded rows."""
        itemsize = ITEMSIZE[dtype]
        place = self.scratch(padded_bytes(sizes, itemsize))
        return Tensor(sizes, padded_strides(sizes, itemsize), dtype, *place)

    @contextmanager
    def apart(self, name: str) -> Iterator[None]:
        """Tables inside have names of their own: of one of several calls in a schedule, which number theirs alike."""
        before, self._apart = self._apart, f"{self._apart}{name}_"
        yield
        self._apart = before

    def table(self, name: str, data: NDArray[Any]) -> Place:
        """A constant array; the same one under the same name is one table."""
        name = self._apart + name
        if self._tables.setdefault(name, data) is not data:
            raise ValueError(f"{name} is another table already")
        return Place(name)

    def counters(self, words: int) -> Place:
        """Words that are 0, and that steps must leave so."""
        self._counters = max(self._counters, words)
        return Place(COUNTERS)

    def copy(self, source: Tensor, target: Tensor) -> None:
        """Add a copy, which ends before the next launch begins: texts wait for what stages make, not for operands.

        Raises ValueError where nobody said how to copy, PlanError for dtypes that differ and that no text converts.
        """
        if 0 in source.sizes:
            return
        if self._copying is None:
            raise ValueError(f"a copy of {source.buffer} wanted in a schedule that has no copying")
        self._copying(self, source, target)
        self._overlapped = False

    def readable(self, tensor: Tensor, *, copied: bool) -> Tensor:
        """The array, or where it is ``copied`` a copy with padded rows, of one array one."""
        if not copied:
            return tensor
        if tensor not in self._copies:
            self._copies[tensor] = self.tensor(tensor.sizes, tensor.dtype)
            self.copy(tensor, self._copies[tensor])
        return self._copies[tensor]

    def launch(
        self, text: Text, grid: int, numbers: Mapping[str, int | float],
        pointers: Mapping[str, Place | Tensor | None], *, maps: Mapping[str, Sequence[BoxMap]] | None = None,
        overlaps: bool = False,
    ) -> None:  # fmt: skip
        """Add a launch; none where it has no blocks. Pointers to tensors are to their first elements, None is 0.

        overlaps: as Step has it, but never the first one, which knows nothing of what is before it.
        """
        if not grid:
            return
        places = {name: place_of(one) if isinstance(one, Tensor) else one for name, one in pointers.items() if one}
        numbers = {**numbers, **{name: 0 for name, one in pointers.items() if one is None}}
        found = {name: tuple(several) for name, several in (maps or {}).items()}
        given = [*numbers, *places, *found]
        if sorted(given) != sorted(name for name, _ in text.entry.parameters):
            raise ValueError(f"{text.name} wants {text.entry.parameters}, got {given}")
        self._steps.append(Step(text, grid, numbers, places, found, overlaps and self._overlapped))
        self._overlapped = True

    def finish(self) -> Schedule:
        """The schedule. Raises ValueError for a buffer that nobody has."""
        known = {*self._arguments, *self._tables, SCRATCH, COUNTERS}
        for step in self._steps:
            if unknown := buffers_of(step) - known:
                raise ValueError(f"no such buffers: {sorted(unknown)}")
        return Schedule(tuple(self._steps), tuple(self._arguments), self._tables, self._scratch, self._counters)


def part_bytes(nbytes: int) -> int:
    """What a part of so many bytes takes, so that the next one is aligned."""
    return max(-(-nbytes // PART_ALIGNMENT), 1) * PART_ALIGNMENT


def place_of(tensor: Tensor) -> Place:
    """Where its first element is."""
    return Place(tensor.buffer, tensor.offset)


def buffers_of(step: Step) -> set[str]:
    """All that a step reads or writes."""
    mapped = {one.tensor.buffer for several in step.maps.values() for one in several}
    return {place.buffer for place in step.pointers.values()} | mapped
