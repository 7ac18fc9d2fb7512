"""Runs the text of CPU functions as ordinary Python on checked memory.

Every import of the text is answered from cpu_vectors, or by who asks. Memory that a function makes itself starts as
NaN.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from splat_numba.emulator.cpu_vectors import modules
from splat_numba.errors import EmulationError
from splat_numba.gen.language.cpu_entry import CpuEntry, CpuText, Parameter
from splat_numba.gen.language.dtypes import ITEMSIZE


def emulate(text: CpuText, more: Mapping[str, Any] | None = None) -> dict[str, Callable[..., Any]]:
    """The entry functions of a text by name, for whoever would call compiled ones. Raises EmulationError in a call for
    what lies outside of an array, a write to an input, or arguments that are not the entry's.

    more: modules that the text imports beside those of cpu_vectors, by their full names.
    """
    found = {**modules(), **(more or {})}
    names: dict[str, Any] = {"__builtins__": vars(builtins) | {"__import__": lambda name, *_: found[name]}}
    exec(compile(text.source, f"<emulated {text.name}>", "exec"), names)  # noqa: S102 - the text is our own
    return {one.name: _checked(one, names[one.name]) for one in text.entries}


def _checked(entry: CpuEntry, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(first: int, last: int, *arguments: Any) -> Any:
        if len(arguments) != len(entry.parameters):
            raise EmulationError(f"{entry.header} wanted, got {len(arguments)} arguments after the range")
        given = [_given(one, value) for one, value in zip(entry.parameters, arguments, strict=True)]
        with np.errstate(all="ignore"):
            return function(first, last, *given)

    return call


def _given(one: Parameter, value: Any) -> Any:
    """The argument as the function gets it: a number, or an array that is read-only unless it is written."""
    dtype = np.dtype("uint16" if ITEMSIZE.get(one.dtype) == 2 else one.dtype)
    array = np.asarray(value)
    if array.ndim != one.axes or array.dtype != dtype or (one.contiguous and not array.flags.c_contiguous):
        raise EmulationError(f"{one} wanted, got {array.dtype} of shape {array.shape} and strides {array.strides}")
    if not one.axes:
        return value
    view = array.view()
    view.flags.writeable = one.written and array.flags.writeable
    return view
