"""Generated text as an importable module: a content-addressed file, or linecache where no file may be written."""

from __future__ import annotations

import hashlib
import linecache
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType


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

    def write(self, folder: Path) -> Path:
        """Write the file unless it is there: by a temporary file and a rename, and never again.

        Numba's disk cache knows a function by path, size and time, not by its constants: a file that was rewritten
        would be given the old kernel's machine code.
        """
        path = folder / f"{self.name}.py"
        if not path.exists() or path.read_bytes() != self.text.encode():
            handle, temporary = tempfile.mkstemp(dir=folder, suffix=".tmp")
            with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
                file.write(self.text)
            Path(temporary).replace(path)
        return path

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
