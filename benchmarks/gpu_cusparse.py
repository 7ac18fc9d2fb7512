"""cuSPARSE's SDDMM and SpMM over CSR matrices that share one mask, all heads in one call, through ctypes.

CuPy binds SpMM alone (cupy_backends.cuda.libs.cusparse has no SDDMM), torch.sparse sampled_addmm for few dtypes. The
library is the one that PyTorch has loaded. Its columns are strided as its values are, so every head has a copy of them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

DATA = {torch.float32: 0, torch.float64: 1, torch.float16: 2, torch.bfloat16: 14}  # cudaDataType
INDEX_32, BASE_0, ROW_MAJOR = 2, 0, 2
PLAIN, TRANSPOSED = 0, 1
SDDMM_DEFAULT, SPMM_CSR_2 = 0, 6  # algorithms; CSR_ALG2 is the documented one for row-major operands


class CusparseError(RuntimeError):
    """A call refused by the library, with its status."""


@dataclass(slots=True)
class Cusparse:
    """The library with a handle; what its descriptors point to stays alive with it."""

    library: ctypes.CDLL = field(default_factory=lambda: ctypes.CDLL("libcusparse.so.12"))
    handle: ctypes.c_void_p = field(default_factory=ctypes.c_void_p)
    alive: list[Any] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Make the handle."""
        self.call("cusparseCreate", ctypes.byref(self.handle))

    def call(self, name: str, *arguments: Any) -> None:
        """A function of the library. Raises CusparseError for any status but success."""
        status = getattr(self.library, name)(*arguments)
        if status:
            raise CusparseError(f"{name}: wanted status 0, got {status}")

    def dense(self, one: torch.Tensor) -> ctypes.c_void_p:
        """(heads, rows, columns), contiguous."""
        heads, rows, columns = one.shape
        made = ctypes.c_void_p()
        sizes = map(ctypes.c_int64, (rows, columns, columns))
        self.call("cusparseCreateDnMat", ctypes.byref(made), *sizes, _address(one), DATA[one.dtype], ROW_MAJOR)
        self.call("cusparseDnMatSetStridedBatch", made, heads, ctypes.c_int64(rows * columns))
        self.alive.append(one)
        return made

    def csr(self, indptr: torch.Tensor, columns: torch.Tensor, values: torch.Tensor, width: int) -> ctypes.c_void_p:
        """values: (heads, nnz); indptr, columns: int32, of one head."""
        heads, pairs = values.shape
        repeated, made = columns.repeat(heads), ctypes.c_void_p()
        self.call(
            "cusparseCreateCsr", ctypes.byref(made), ctypes.c_int64(indptr.numel() - 1), ctypes.c_int64(width),
            ctypes.c_int64(pairs), _address(indptr), _address(repeated), _address(values), INDEX_32, INDEX_32, BASE_0,
            DATA[values.dtype],
        )  # fmt: skip
        self.call("cusparseCsrSetStridedBatch", made, heads, ctypes.c_int64(0), ctypes.c_int64(pairs))
        self.alive += [indptr, repeated, values]
        return made

    def prepared(self, name: str, operands: tuple[Any, ...], result: torch.Tensor) -> Callable[[int], torch.Tensor]:
        """A call of cusparse``name`` (handle, operands, buffer), its buffer made and its analysis done."""
        size = ctypes.c_size_t()
        self.on_stream()
        self.call(f"cusparse{name}_bufferSize", self.handle, *operands, ctypes.byref(size))
        buffer = torch.empty(max(size.value, 1), dtype=torch.uint8, device="cuda")
        arguments = (self.handle, *operands, _address(buffer))
        self.call(f"cusparse{name}_preprocess", *arguments)
        self.alive.append(buffer)

        def call(_: int) -> torch.Tensor:
            self.on_stream()
            self.call(f"cusparse{name}", *arguments)
            return result

        return call

    def on_stream(self) -> None:
        """PyTorch's current one."""
        self.call("cusparseSetStream", self.handle, ctypes.c_void_p(torch.cuda.current_stream().cuda_stream))


def _address(one: torch.Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(one.data_ptr())


def _factors(dtype: torch.dtype, alpha: float) -> tuple[Any, Any, int]:
    """alpha, 0 and the type they are computed in."""
    kind = ctypes.c_double if dtype == torch.float64 else ctypes.c_float
    computed = DATA[torch.float64 if dtype == torch.float64 else torch.float32]
    return ctypes.byref(kind(alpha)), ctypes.byref(kind(0.0)), computed


def sddmm(
    q: torch.Tensor, k: torch.Tensor, indptr: torch.Tensor, columns: torch.Tensor, scale: float
) -> Callable[[int], torch.Tensor]:  # fmt: skip
    """scale * q k^T at the pairs of every head: (heads, nnz)."""
    library = Cusparse()
    values = torch.zeros(len(q), columns.numel(), dtype=q.dtype, device="cuda")
    alpha, beta, computed = _factors(q.dtype, scale)
    library.alive += [alpha, beta]
    operands = (
        PLAIN, TRANSPOSED, alpha, library.dense(q), library.dense(k), beta,
        library.csr(indptr, columns, values, k.shape[1]), computed, SDDMM_DEFAULT,
    )  # fmt: skip
    return library.prepared("SDDMM", operands, values)


def spmm(
    values: torch.Tensor, v: torch.Tensor, indptr: torch.Tensor, columns: torch.Tensor
) -> Callable[[int], torch.Tensor]:
    """Values at the pairs of every head times v: (heads, rows, dim)."""
    library = Cusparse()
    out = torch.zeros(len(v), indptr.numel() - 1, v.shape[2], dtype=v.dtype, device="cuda")
    alpha, beta, computed = _factors(v.dtype, 1.0)
    library.alive += [alpha, beta]
    operands = (
        PLAIN, PLAIN, alpha, library.csr(indptr, columns, values, v.shape[1]), library.dense(v), beta,
        library.dense(out), computed, SPMM_CSR_2,
    )  # fmt: skip
    return library.prepared("SpMM", operands, out)
