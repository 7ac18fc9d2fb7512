"""How a generated GPU function is called: what a launcher, a compiler and an emulator need beside its text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """name: of the function in its text. parameters: (name, kind) in order, kinds as in gen.instructions (r: uint32,
    l: uint64, f: float32). threads: of a block; blocks: resident on a multiprocessor, for which registers are shared
    out; shared_bytes: dynamic shared memory of a block; overlaps: it may begin before the launch before it has ended,
    for whose results its text waits itself (await_launch).
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    threads: int
    blocks: int
    shared_bytes: int
    overlaps: bool = False

    @property
    def kinds(self) -> str:
        """The parameters' kinds alone."""
        return "".join(kind for _, kind in self.parameters)
