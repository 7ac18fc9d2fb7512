"""numba-cuda-mlir as a compiler: numba-cuda's successor, which takes NumPy 2.5."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ClassVar

from splat_numba.errors import BackendError
from splat_numba.gen.language.entry import Entry
from splat_numba.runtime import cache
from splat_numba.runtime.cuda.dialect import Dialect

INSTALL_MLIR = 'python -m pip install "splat-numba[cuda-mlir]"'
TRIED = "0.6."  # of these versions the private parts are as mlir_passes has them


@dataclass(frozen=True, slots=True)
class Mlir:
    """See compiler.Compiler."""

    name: ClassVar[str] = "mlir"
    packages: ClassVar[tuple[str, ...]] = ("numba-cuda-mlir", "cuda-core", "nvidia-nvvm", "nvidia-nvjitlink")
    extra: ClassVar[str] = "cuda-mlir"
    made_by: ClassVar[str] = (
        "from splat_numba.runtime.cuda.compilers import mlir, mlir_passes, mlir_pipeline, mlir_ptx, mlir_scalars"
    )

    def check(self) -> None:
        """Raise BackendError where it is not installed, or of a version that was not tried."""
        version = cache.version_of(self.packages[0])
        if version != "unknown" and not version.startswith(TRIED):
            raise BackendError(
                f"SPLAT_CUDA_COMPILER 'mlir' wanted numba-cuda-mlir {TRIED}*, got {version}. Run: {INSTALL_MLIR}, "
                "or unset SPLAT_CUDA_COMPILER."
            )
        try:
            for name in ("cuda.core", "splat_numba.runtime.cuda.compilers.mlir_ptx"):
                import_module(name)
        except ImportError as error:
            raise BackendError(
                f"backend 'cuda' wanted, but its compiler 'mlir' is missing ({error}). "
                f"Install the extra: {INSTALL_MLIR}."
            ) from error

    def dialect(self) -> Dialect:
        """numba-cuda-mlir's cuda, and our intrinsics for it."""
        from numba_cuda_mlir import cuda

        from splat_numba.runtime.cuda.compilers import mlir_ptx

        return Dialect(cuda, mlir_ptx)

    def intermediate(self, function: Callable[..., Any], entry: Entry, output: str) -> bytes:
        """Numba's front end, MLIR's passes, NVVM: by our passes, or else by numba-cuda-mlir's own way, which says what
        is wrong, if anything is.
        """
        from splat_numba.runtime.cuda.compilers import mlir_passes

        try:
            from splat_numba.runtime.cuda.compilers import mlir_pipeline

            with mlir_pipeline.in_place():
                return mlir_passes.compiled(function, entry, lto=output == "ltoir")
        except Exception:  # noqa: BLE001 - a private part of it is missing, or the text is at fault
            return mlir_passes.compiled(function, entry, lto=output == "ltoir")
