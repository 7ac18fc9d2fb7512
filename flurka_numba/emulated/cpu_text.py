"""Runs the text of CPU kernels as ordinary Python on checked memory: splat_numba's emulator, with the functions that
feature maps need beside its own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator import cpu_text
from splat_numba.emulator.cpu_memory import Pointer
from splat_numba.emulator.cpu_vectors import VECTORS, Vectors
from splat_numba.gen.language.cpu_entry import CpuText

Vector = NDArray[Any]


def emulate(text: CpuText) -> dict[str, Callable[..., Any]]:
    """The entry functions of a text by name; errors as splat_numba.emulator.cpu_text.emulate()."""
    return cpu_text.emulate(text, {"flurka_numba.cpu.intrinsics": INTRINSICS})


def square_root(a: Vector) -> Vector:
    """The square roots of a vector; NaN below 0."""
    found: Vector = np.sqrt(a)
    return found


def exponent(a: Vector) -> Vector:
    """The whole e with 2**e <= a < 2**(e + 1); of numbers that are not positive and normal what their bits give."""
    facts = np.finfo(a.dtype)
    words = a.view(np.dtype(f"uint{facts.bits}")) >> facts.nmant
    found: Vector = words.astype(a.dtype) + facts.dtype.type(facts.minexp - 1)
    return found


def load_tile(like: Vectors, source: Pointer, step: int) -> tuple[Vector, ...]:
    """The register tile at ``source``, rows ``step`` apart; ``like`` gives its size."""
    width = like[0].size
    places = (divmod(at, VECTORS) for at in range(len(like)))
    return tuple(source.read(row * step + lanes * width, width) for row, lanes in places)


INTRINSICS = SimpleNamespace(square_root=square_root, exponent=exponent, load_tile=load_tile)
"""As flurka_numba.cpu.intrinsics has them for machine code."""
