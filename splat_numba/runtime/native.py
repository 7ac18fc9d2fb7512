"""How functions of ours that stand in no text become machine code: as texts do, without the GIL, errors as NumPy's."""

from __future__ import annotations

from numba import njit

native = njit(nogil=True, error_model="numpy")
"""Decorates a function that others call by its address or from Python."""
inlined = njit(nogil=True, error_model="numpy", forceinline=True)
"""Decorates one that is made part of its callers."""
