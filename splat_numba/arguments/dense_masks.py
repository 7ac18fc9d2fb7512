"""Dense masks as NumPy arrays; what is no mask, and what to write instead."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.patterns import constructor_name
from splat_numba.plain import kind
from splat_numba.runtime.arrays import on_gpu
from splat_numba.runtime.jax_arrays import is_traced


def dense_mask(mask: Any, name: str) -> NDArray[Any]:
    """A 2-D array of NumPy's, of any dtype. Raises ArgumentError, ArgumentTypeError for what is none."""
    if not isinstance(mask, np.ndarray):
        if not hasattr(type(mask), "__dlpack__"):
            _refuse(mask, name)
        mask = _by_dlpack(mask, name)
    if mask.ndim != 2:
        raise ArgumentError(
            f"{name} wanted with 2 axes, (seq_q, seq_kv), got shape {mask.shape}. Give one such mask, or a list of "
            "them, one a query head."
        )
    found: NDArray[Any] = mask
    return found


def _by_dlpack(mask: Any, name: str) -> NDArray[Any]:
    if is_traced(mask):
        raise ArgumentError(
            f"{name} wanted known while JAX traces, got its {kind(mask)}: a kernel is made for the mask. Give a "
            "Pattern, an ACSR or a NumPy array, by a closure or static_argnums."
        )
    if on_gpu(mask):
        raise ArgumentTypeError(
            f"{name} wanted in CPU memory, where plans are made, got a GPU array. Copy it, as with {name}.cpu(), or "
            "give a Pattern."
        )
    try:
        return np.from_dlpack(mask)
    except Exception as error:
        raise ArgumentTypeError(
            f"{name} wanted as a 2-D bool array that NumPy can view, got {kind(mask)}: {error}. Give a bool array, "
            f"such as {name} == 0 of an additive mask."
        ) from error


def _refuse(mask: Any, name: str) -> NoReturn:
    if isinstance(mask, (list, tuple)):
        raise ArgumentTypeError(f"{name} wanted as one mask, got a {kind(mask)}. Only attention takes a mask a head.")
    raise ArgumentTypeError(
        f"{name} wanted as a Pattern, an ACSR or a 2-D bool array, got {kind(mask)}. {_advice(mask, name)}"
    )


def _advice(mask: Any, name: str) -> str:
    """What to write instead."""
    word = constructor_name(mask)
    if word is not None:
        return f"Call it: splat.{word}(...)."
    if kind(mask) in ("function", "method", "partial"):
        return (
            "Write what it keeps as a Pattern, or ask it about all pairs: of a mask_mod give "
            f"{name}(0, 0, np.arange(seq_q)[:, None], np.arange(seq_kv)), a bool array."
        )
    if type(mask).__module__.startswith("scipy.sparse"):
        return f"Give splat.ACSR.from_scipy({name})."
    if kind(mask) == "BlockMask":
        return (
            "Write what it keeps as a Pattern, or give its pairs: "
            f"create_mask({name}.mask_mod, None, None, seq_q, seq_kv, device='cpu')[0, 0]."
        )
    return 'Build one, for example splat.window(128), or splat.parse("window(128)") from text.'
