"""Copies on the GPU, the one case where there are any: arrays that the copy engine or the kernel's stores cannot take.

Those are an odd head_dim in a contiguous array, a misaligned base, and zero or negative strides: such an operand is
copied once into rows padded to 16 bytes, and such a result is written to padded rows first. One small kernel of Numba's
moves elements between any strides, whatever the framework; the compiler is that of the call's other kernels.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.tensor import padded

if TYPE_CHECKING:
    from splat_numba.runtime.cuda.compilers.compiler import Compiler

_THREADS = 256
_SMALLEST_GRID = 128  # Numba warns of fewer
_LARGEST_GRID = 1 << 16


def padded_rows(bits: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """A copy on the host whose rows are padded so, with zeros."""
    dim = bits.shape[-1]
    rows = np.zeros((*bits.shape[:-1], padded(dim)), np.uint16)
    rows[..., :dim] = bits
    return rows


@cache
def _kernel(compiler: Compiler) -> Any:
    cuda = compiler.dialect().cuda

    @cuda.jit
    def move(target: Any, source: Any) -> None:
        place = np.int64(cuda.grid(1))
        while place < target.size:
            rest = place
            dim = rest % target.shape[3]
            rest //= target.shape[3]
            row = rest % target.shape[2]
            rest //= target.shape[2]
            target[rest // target.shape[1], rest % target.shape[1], row, dim] = source[
                rest // target.shape[1], rest % target.shape[1], row, dim
            ]
            place += cuda.gridsize(1)

    return move


def move(
    target: int, target_strides: tuple[int, ...], source: int, source_strides: tuple[int, ...],
    shape: tuple[int, int, int, int], stream: int, types: tuple[str, str], compiler: str | None,
) -> None:  # fmt: skip
    """target[...] = source[...] in the order of ``stream``: addresses, strides in bytes; types: of target, source;
    compiler: as Settings.cuda_compiler.
    """
    size = int(np.prod(shape, dtype=np.int64))
    if not size:
        return
    from splat_numba.runtime.cuda.compilers.compiler import chosen

    made_by = chosen(compiler)
    cuda = made_by.dialect().cuda

    def view(pointer: int, strides: tuple[int, ...], kind: str) -> Any:
        facts = {"data": (pointer, False), "shape": shape, "strides": strides, "typestr": kind, "version": 3}
        return made_by.view(facts)

    blocks = min(max(-(-size // _THREADS), _SMALLEST_GRID), _LARGEST_GRID)
    order = cuda.external_stream(stream) if stream else cuda.default_stream()
    kernel = _kernel(made_by)
    kernel[blocks, _THREADS, order](view(target, target_strides, types[0]), view(source, source_strides, types[1]))
