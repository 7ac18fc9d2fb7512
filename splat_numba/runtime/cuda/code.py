"""Texts and their machine code: printed, then compiled or read from disk, and remembered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from splat_numba.errors import ArgumentError
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.schedule import Text
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

if TYPE_CHECKING:
    from splat_numba.runtime.cuda.build import Cubin


@dataclass(frozen=True, slots=True)
class EditedText:
    """A text of the caller's, called as the one whose place it takes."""

    source: KernelSource
    entry: Entry

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    def render(self) -> str:
        """The source's text."""
        return self.source.text


def edited_text(texts: Sequence[Text], source: KernelSource) -> EditedText:
    """The caller's text in place of all of these. Raises ArgumentError where they are several, CompileError."""
    kinds = set(texts)
    if len(kinds) != 1:
        raise ArgumentError(f"kernel wanted with one text, got {len(kinds)}. Choose a mask of one pass.")
    (text,) = kinds
    source.check_defines(text.entry.name)
    return EditedText(source, text.entry)


@lru_cache(maxsize=512)
def source_of(text: Text) -> KernelSource:
    """The text, printed, under a name with its hash."""
    return text.source if isinstance(text, EditedText) else KernelSource.of(text.name, text.render())


@lru_cache(maxsize=512)
def cubin_for(text: Text, settings: Settings) -> Cubin:
    """Machine code, remembered, or from disk, or compiled. Raises BackendError without the compiler, CompileError."""
    from splat_numba.runtime.cuda.build import build

    return build(source_of(text), text.entry, settings)
