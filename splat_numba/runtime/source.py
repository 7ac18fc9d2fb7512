"""Generated text as an importable module: a content-addressed file, or linecache where no file may be written."""

from __future__ import annotations

import ast
import hashlib
import linecache
import os
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

from splat_numba.errors import ArgumentError, ArgumentTypeError, CompileError
from splat_numba.plain import cause
from splat_numba.runtime.cache import write_file

LONGEST_STEM = 60  # characters of a file's name that its copy in the cache keeps: whole names end at 255 bytes


@dataclass(frozen=True, slots=True)
class KernelSource:
    """Text of a kernel and the name it is known by: ``<family>_<traits>_<sha12>``, the hash being of the text; origin:
    the file of a hand-edited one, to be named in messages.
    """

    name: str
    text: str
    origin: Path | None = field(default=None, compare=False)

    @classmethod
    def of(cls, traits: str, text: str, origin: Path | None = None) -> KernelSource:
        """Named after its traits and the hash of its text."""
        return cls(f"{traits}_{hashlib.sha256(text.encode()).hexdigest()[:12]}", text, origin)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str]) -> KernelSource:
        """The text of a file, hand-edited perhaps: "edit, rerun" is then a one-line experiment.

        Raises ArgumentError for a file that cannot be read, CompileError for one that is no Python.
        """
        try:
            found = Path(path)
            content = found.read_bytes()
        except TypeError:
            raise ArgumentTypeError(
                f"path wanted as a file's name, got {type(path).__name__}. Give a string."
            ) from None
        except (OSError, ValueError) as error:  # ValueError: a name that no file has
            raise ArgumentError(
                f"path wanted as a file that can be read, got {path!s}: {cause(error)}. Write it first."
            ) from None
        try:
            text = content.decode()
            compile(text, str(found), "exec")
        except SyntaxError as error:
            where = f"line {error.lineno}" if error.lineno else "it"  # zeros are on no line
            raise CompileError(f"path {path!s}: {where} is no Python: {error.msg}. Mend it.") from None
        except ValueError as error:  # of another encoding, or with null bytes
            raise CompileError(f"path {path!s}: wanted as Python in UTF-8, got {error}. Mend it.") from None
        return cls.of(found.stem[:LONGEST_STEM], text, found)

    def named(self, path: Path | None = None) -> str:
        """What messages call it: a hand-edited file, or else where the text was written, in the cache perhaps."""
        return f"path {self.origin}" if self.origin else f"source {path or self.name}"

    def check_defines(self, *functions: str) -> None:
        """Raise CompileError unless the text defines these functions."""
        found = {node.name for node in ast.parse(self.text).body if isinstance(node, ast.FunctionDef)}
        for name in functions:
            if name not in found:
                raise CompileError(
                    f"{self.named()}: function {name} wanted, which is what is called, got none. Put it back."
                )

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


def unload(module: ModuleType) -> None:
    """Let go of what load() made: from now on only those who hold its functions have them."""
    if sys.modules.get(module.__name__) is module:
        del sys.modules[module.__name__]
        linecache.cache.pop(str(module.__file__), None)
    vars(module).clear()  # compiled functions hold it, and it holds them
