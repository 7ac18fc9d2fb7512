"""Dtypes by name, whatever framework names them."""

from __future__ import annotations

from typing import Any

from splat_numba.errors import ArgumentTypeError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.plain import shown


def check_dtype_name(dtype: Any) -> str:
    """The name of a supported dtype, from a name, a NumPy dtype or type, or another framework's dtype."""
    name = dtype_name(dtype)
    if name not in ITEMSIZE:
        raise ArgumentTypeError(
            f"dtype wanted as one of {', '.join(ITEMSIZE)}, got {shown(dtype)}. Convert the arrays."
        )
    return name


def dtype_name(dtype: Any) -> str:
    """The name of any framework's dtype, such as "float32"; "" for what has none."""
    if isinstance(dtype, str):
        return dtype
    try:
        return str(getattr(dtype, "name", getattr(dtype, "__name__", dtype))).removeprefix("torch.")
    except Exception:  # noqa: BLE001 - a stranger's object may raise anything
        return ""
