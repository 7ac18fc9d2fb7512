"""numba-cuda as a compiler, the one that is taken by default."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from splat_numba.errors import BackendError
from splat_numba.gen.language.entry import Entry
from splat_numba.runtime.cuda.dialect import Dialect
from splat_numba.runtime.cuda.driver import INSTALL


@dataclass(frozen=True, slots=True)
class NumbaCuda:
    """See compiler.Compiler."""

    name: ClassVar[str] = "numba-cuda"
    # The last two may be the CUDA toolkit's own: then their versions are not known.
    packages: ClassVar[tuple[str, ...]] = (
        "numba-cuda", "numba", "llvmlite", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink"
    )  # fmt: skip
    extra: ClassVar[str] = "cuda"
    made_by: ClassVar[str] = (
        "from splat_numba.runtime.cuda.compilers import numba_cuda, numba_cuda_capability\n"
        "from splat_numba.runtime.cuda.compilers import numba_cuda_passes, numba_cuda_ptx"
    )

    def check(self) -> None:
        """Raise BackendError where some part of the compiler is not installed, or Numba stands in for it."""
        try:
            for name in ("numba_cuda", "cuda.core", "splat_numba.runtime.cuda.compilers.numba_cuda_ptx"):
                import_module(name)
            from numba.core import config
        except ImportError as error:
            raise BackendError(
                f"backend 'cuda' wanted, but its compiler is missing ({error}). Install the extra: {INSTALL}."
            ) from error
        if config.ENABLE_CUDASIM:
            raise BackendError(
                "NUMBA_ENABLE_CUDASIM wanted unset for backend 'cuda', got 1: Numba's simulator compiles nothing. "
                "Unset it, or use backend='emulate'."
            )

    def dialect(self) -> Dialect:
        """Numba's cuda, and our intrinsics for it."""
        from numba import cuda

        from splat_numba.runtime.cuda.compilers import numba_cuda_ptx

        return Dialect(cuda, numba_cuda_ptx)

    def intermediate(self, function: Callable[..., Any], entry: Entry, output: str) -> bytes:
        """By our passes, or else by numba-cuda's own way, which says what is wrong, if anything is."""
        from numba import cuda, types

        from splat_numba.runtime.cuda.compilers.numba_cuda_capability import compiling_for

        kinds = {"r": types.uint32, "l": types.uint64, "f": types.float32}
        signature = tuple(kinds[kind] for kind in entry.kinds)
        bounds = (entry.threads, entry.blocks)

        def compiled() -> bytes:
            options = {"device": False, "cc": entry.capability, "abi": "numba", "launch_bounds": bounds}
            with compiling_for(entry.capability):
                code, _ = cuda.compile(function, signature, output=output, **options)
            return code.encode() if isinstance(code, str) else bytes(code)

        try:
            from splat_numba.runtime.cuda.compilers import numba_cuda_passes

            with numba_cuda_passes.in_place():
                return compiled()
        except Exception:  # noqa: BLE001 - a private part of numba-cuda is missing, or the text is at fault
            return compiled()
