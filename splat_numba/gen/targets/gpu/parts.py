"""Parts of a kernel as device functions: what each is given and gives back follows from its statements.

An emitter writes a kernel from top to bottom, and says where a part begins and ends, and what it is called. A part is
given the names that its statements want from before, and gives back those of its own that are wanted afterwards;
arrays that it is given stay registers, as it is inlined. A part that stands in several places is written down once.
"""

from __future__ import annotations

import ast
import builtins
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from textwrap import dedent

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import DEVICE, device_function, wrapped
from splat_numba.gen.targets.gpu.liveness import Liveness, names

ARRAY = "cuda.local.array"
KNOWN = frozenset({*dir(builtins), "np", "cuda", "ptx", "f32", "u32", "u64"})


@dataclass(slots=True)
class Part:
    """given: parameters that the call has expressions for; lines: the first and the last, counted from 0, of which
    those of ``given`` come first.
    """

    name: str
    docstring: str
    given: Mapping[str, str]
    first: int
    last: int = 0
    inner: list[Part] = field(default_factory=list)

    @property
    def body(self) -> int:
        """The first line behind those of ``given``."""
        return self.first + len(self.given)


class KernelWriter(SourceWriter):
    """Collects a text whose last function is the entry; ``part`` makes a device function of what is written inside."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[Part] = []
        self._open: list[Part] = []
        self._ready: dict[str, Callable[[SourceWriter], None]] = {}
        self._device_at = 0

    def place_device(self) -> None:
        """Here the text says what a device function is, if it has any."""
        self._device_at = len(self._lines)

    def needs(self, name: str, emit: Callable[[SourceWriter], None]) -> None:
        """The text calls a device function of this name, which emit writes: one that is no part of this kernel's."""
        self._ready.setdefault(name, emit)

    @contextmanager
    def part(self, name: str, docstring: str, **given: str) -> Iterator[None]:
        """A device function of this name, called here. given: expressions for parameters that the statements inside
        use, and that no statement outside does.
        """
        one = Part(name, docstring, given, len(self._lines))
        for parameter, expression in given.items():
            self.line(f"{parameter} = {expression}")
        (self._open[-1].inner if self._open else self._parts).append(one)
        self._open.append(one)
        yield
        self._open.pop()
        one.last = len(self._lines) - 1

    def text(self) -> str:
        """The whole source, its parts behind the entry in the order of their calls."""
        if not self._parts and not self._ready:
            return super().text()
        outlined = _Outlined(self._lines, self._parts, self._ready)
        out = SourceWriter()
        head = outlined.replaced(0, len(self._lines) - 1, self._parts)
        for number, line in enumerate(head):
            if number == self._device_at:
                out.line(DEVICE)
            out.line(line)
        for one in outlined.functions.values():
            with device_function(out, one.name, outlined.parameters(one), one.docstring):
                for line in outlined.bodies[one.name]:
                    out.line(line)
                if returned := outlined.returned(one):
                    out.line(f"return {', '.join(returned)}")
        for emit in self._ready.values():
            emit(out)
        return out.text()


class _Outlined:
    """What the functions are, of the lines of a text that has them where they are called.

    functions: one of each name, in the order of their calls.
    """

    def __init__(self, lines: Sequence[str], parts: Sequence[Part], ready: Iterable[str]) -> None:
        *head, entry = ast.parse("\n".join(lines)).body
        every = list(_flat(parts))
        functions = {*ready, *(one.name for one in every)}
        ahead = set[str]().union(*map(names, head))
        self._lines = lines
        self._entry: list[ast.stmt] = getattr(entry, "body", [])
        self._known = KNOWN | functions | ahead
        self._liveness = Liveness(self._entry)
        if taken := (functions | ahead) & self._liveness.bound(self._entry):
            raise AssertionError(f"variables wanted with names of their own, got {sorted(taken)}")
        self.functions: dict[str, Part] = {}
        self._wanted: dict[str, set[str]] = {}
        for one in every:
            self.functions.setdefault(one.name, one)
            self._wanted.setdefault(one.name, set()).update(self._wanted_behind(one))
        self._interfaces = {name: self._interface(one) for name, one in self.functions.items()}
        self.bodies = {name: self.body(one) for name, one in self.functions.items()}
        for one in every:
            if one is not self.functions[one.name] and self.body(one) != self.bodies[one.name]:
                raise AssertionError(f"{one.name} stands in two places with different statements")

    def _wanted_behind(self, part: Part) -> set[str]:
        """Names of a part's own that are wanted after it, where it stands."""
        statements = self._statements(part)
        wanted = self._liveness.behind(statements[-1])
        if given := wanted & {*part.given}:
            raise AssertionError(f"{part.name} is given names that are wanted behind it: {sorted(given)}")
        found = self._liveness.bound(statements) & wanted
        if counted := found & self._liveness.counters(statements):
            raise AssertionError(f"{part.name} counts by names that are wanted behind it: {sorted(counted)}")
        if arrays := found & self._arrays(part):
            raise AssertionError(f"{part.name} makes arrays that are wanted behind it: {sorted(arrays)}")
        return found

    def _arrays(self, part: Part) -> set[str]:
        """Names of registers that a part makes."""
        every = (line.partition(" = ") for line in self._lines[part.body : part.last + 1])
        return {name.strip() for name, _, made in every if made.startswith(ARRAY)}

    def _interface(self, part: Part) -> tuple[list[str], list[str]]:
        """A part's parameters and what it gives back, each in the order in which it comes to them; parameters with
        expressions are the last.
        """
        first, last = (bisect_left(self._liveness.places, (line, 0, "")) for line in (part.body + 1, part.last + 2))
        places = {name: place for place, (*_, name) in reversed(list(enumerate(self._liveness.places[first:last])))}
        returned = sorted(self._wanted[part.name], key=places.__getitem__)
        given = self._liveness.before(self._statements(part), returned) - self._known - {*part.given}
        return [*sorted(given, key=places.__getitem__), *part.given], returned

    def parameters(self, part: Part) -> list[str]:
        """Names that a part is given."""
        return self._interfaces[part.name][0]

    def returned(self, part: Part) -> list[str]:
        """Names that are wanted behind any of the places of a part."""
        return self._interfaces[part.name][1]

    def body(self, part: Part) -> list[str]:
        """The function's statements, with calls in place of its own parts."""
        lines = self.replaced(part.body, part.last, part.inner)
        return dedent("\n".join(lines)).splitlines()

    def replaced(self, first: int, last: int, parts: Sequence[Part]) -> list[str]:
        """Lines with calls in place of parts."""
        found: list[str] = []
        for one in parts:
            found += self._lines[first : one.first]
            found += self._call(one)
            first = one.last + 1
        return [*found, *self._lines[first : last + 1]]

    def _call(self, part: Part) -> list[str]:
        line = self._lines[part.first]
        indent = line[: len(line) - len(line.lstrip())]
        returned = ", ".join(self.returned(part))
        arguments = [part.given.get(name, name) for name in self.parameters(part)]
        out = SourceWriter()
        wrapped(out, f"{returned} = {part.name}" if returned else part.name, arguments)
        return [f"{indent}{line}" for line in out.text().splitlines()]

    def _statements(self, part: Part) -> list[ast.stmt]:
        """Those of a part, which are neighbours, without those of ``given``."""
        return _neighbours(self._entry, part.body + 1, part.last + 1)


def _flat(parts: Sequence[Part]) -> Iterator[Part]:
    for one in parts:
        yield one
        yield from _flat(one.inner)


def _neighbours(statements: Sequence[ast.stmt], first: int, last: int) -> list[ast.stmt]:
    """The statements of one suite between two lines."""
    if found := [one for one in statements if first <= one.lineno <= last]:
        return found
    outer = [one for one in statements if one.lineno < first][-1]
    body, orelse = getattr(outer, "body", []), getattr(outer, "orelse", [])
    return _neighbours(orelse if orelse and orelse[0].lineno <= last else body, first, last)
