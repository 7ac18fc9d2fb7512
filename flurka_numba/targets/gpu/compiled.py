"""A text that runs on many GPUs, compiled for one: its source is the same for all."""

from __future__ import annotations

from dataclasses import dataclass, replace

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.schedule import Text


@dataclass(frozen=True, slots=True)
class CompiledText:
    """text: for any architecture; arch: the one that its machine code is for, as "sm_80"."""

    text: Text
    arch: str

    @property
    def name(self) -> str:
        """With the architecture, which an entry of the cache is for."""
        return f"{self.text.name}_{self.arch}"

    @property
    def entry(self) -> Entry:
        """How the kernel is called."""
        return replace(self.text.entry, arch=self.arch)

    def render(self) -> str:
        """Python source of the kernel. Pure and deterministic."""
        return self.text.render()
