"""How a generated GPU function is called: what a launcher, a compiler and an emulator need beside its text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """name: of the function in its text. parameters: (name, kind) in order, kinds as in instructions.py (r: uint32,
    l: uint64, f: float32). threads: of a block; blocks: resident on a multiprocessor, for which registers are shared
    out; shared_bytes: dynamic shared memory of a block; overlaps: it may begin before the launch before it has ended,
    for whose results its text waits itself (await_launch); arch: the architecture that its machine code is for.
    """

    name: str
    parameters: tuple[tuple[str, str], ...]
    threads: int
    blocks: int
    shared_bytes: int
    overlaps: bool = False
    arch: str = "sm_90a"

    @property
    def capability(self) -> tuple[int, int] | tuple[int, int, str]:
        """The architecture as compute capability, with its letter if it has one: (9, 0, "a")."""
        digits = self.arch.removeprefix("sm_").rstrip("af")
        letter = self.arch[len("sm_") + len(digits) :]
        major, minor = int(digits[:-1]), int(digits[-1])
        return (major, minor, letter) if letter else (major, minor)

    @property
    def kinds(self) -> str:
        """The parameters' kinds alone."""
        return "".join(kind for _, kind in self.parameters)
