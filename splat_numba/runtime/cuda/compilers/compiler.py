"""What is asked of a CUDA compiler, and which one it is. To choose one, and to name its version, imports none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from splat_numba.gen.language.entry import Entry
from splat_numba.runtime import cache
from splat_numba.runtime.cuda.compilers.mlir import Mlir
from splat_numba.runtime.cuda.compilers.numba_cuda import NumbaCuda
from splat_numba.runtime.cuda.dialect import Dialect


class Compiler(Protocol):
    """From the function of a text to LTO-IR, which build links.

    name: as SPLAT_CUDA_COMPILER has it. packages: whose versions decide what it makes; the first is the compiler's own.
    extra: of this distribution, that installs them. made_by: imports the modules of ours that it compiles with.
    """

    def __hash__(self) -> int:
        """Compilers are values."""

    @property
    def name(self) -> str:
        """As SPLAT_CUDA_COMPILER has it."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Distributions."""

    @property
    def extra(self) -> str:
        """Of this distribution."""

    @property
    def made_by(self) -> str:
        """An import statement."""

    def check(self) -> None:
        """Raise BackendError, with what to install or to set, where it cannot serve here."""

    def dialect(self) -> Dialect:
        """What its texts import."""

    def intermediate(self, function: Callable[..., Any], entry: Entry, output: str) -> bytes:
        """The entry function as "ltoir" or as "ptx"; raises whatever the compiler does for what does not compile."""


COMPILERS: tuple[Compiler, ...] = (NumbaCuda(), Mlir())


def chosen(name: str | None) -> Compiler:
    """The one named, or else the first that is installed; the first of all where none is, which will say so."""
    if name is not None:
        return next(one for one in COMPILERS if one.name == name)
    return next((one for one in COMPILERS if cache.version_of(one.packages[0]) != "unknown"), COMPILERS[0])


def described(compiler: Compiler) -> str:
    """Its package and version: "numba-cuda 0.30.4"."""
    package = compiler.packages[0]
    return f"{package} {cache.version_of(package)}"
