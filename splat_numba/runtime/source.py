"""Generated text as an importable module: a content-addressed file, or linecache where no file may be written."""

from __future__ import annotations

import hashlib
import linecache
import os
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from splat_numba.runtime.cache import write_file


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Text of a kernel and the name it is known by: ``<family>_<traits>_<sha12>``, the hash being of the text."""

    name: str
    text: str

    @classmethod
    def of(cls, traits: str, text: str) -> KernelSource:
        """Named after its traits and the hash of its text."""
        return cls(f"{traits}_{hashlib.sha256(text.encode()).hexdigest()[:12]}", text)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> KernelSource:
        """The text of a file, hand-edited perhaps: "edit, rerun" is then a one-line experiment."""
        found = Path(path)
        return cls.of(found.stem, found.read_text(encoding="utf-8"))

    def write(self, folder: Path) -> Path | None:
        """Write the file unless it is there, and never again; None, after a warning, where that fails.

        A name stands for one text for good: tracebacks and profilers read the file long after it was run.
        """
        path = folder / f"{self.name}.py"
        with suppress(OSError):
            if path.read_bytes() == self.text.encode():
                return path
        return path if write_file(path, self.text.encode()) else None

    def load(self, path: Path | None) -> ModuleType:
        """Run the text as a module whose functions point to ``path``, or to a pseudo-file known to linecache."""
        filename = str(path) if path else f"<splat {self.name}>"
        if path is None:
            linecache.cache[filename] = (len(self.text), None, self.text.splitlines(keepends=True), filename)
        module = ModuleType(f"splat_kernel_{self.name}")
        module.__file__ = filename
        sys.modules[module.__name__] = module  # Numba finds the globals of cached machine code by module name
        exec(compile(self.text, filename, "exec"), module.__dict__)  # noqa: S102 - the text is our own
        return module
