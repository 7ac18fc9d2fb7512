"""Dtypes by name, whatever framework names them."""

from __future__ import annotations

from typing import Any

from splat_numba.errors import ArgumentTypeError
from splat_numba.gen.problem import ITEMSIZE


def check_dtype_name(dtype: Any) -> str:
    """The name of a supported dtype, from a name, a NumPy dtype or type, or another framework's dtype."""
    name = dtype if isinstance(dtype, str) else getattr(dtype, "name", getattr(dtype, "__name__", str(dtype)))
    name = str(name).removeprefix("torch.")
    if name not in ITEMSIZE:
        raise ArgumentTypeError(f"dtype wanted as one of {', '.join(ITEMSIZE)}, got {dtype!r}. Convert the arrays.")
    return name
