"""Checks of the numbers that patterns are built from; they turn NumPy integers into Python ones."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from typing import SupportsIndex, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.plain import kind, shown, whole_number

Ints: TypeAlias = "tuple[SupportsIndex, ...] | list[SupportsIndex] | NDArray[np.integer]"

# Far beyond any sequence, and small enough that sums of positions, sizes and a few products stay exact in int64.
MAX_SIZE = 2**40
# Of one list: as Python integers these take half a gigabyte.
MOST_NUMBERS = 2**24


def is_integer(value: object) -> bool:
    """Whether `value` is an integer of Python or NumPy; bool is not one."""
    return whole_number(value) is not None


def is_array(value: object) -> bool:
    """Whether `value` is an array of NumPy or of another framework, which are known by these methods."""
    return hasattr(type(value), "__array__") and hasattr(type(value), "tolist")


def integer(name: str, value: object, least: int, most: int = MAX_SIZE) -> int:
    """`value` as a Python int in [least, most]; PatternTypeError or PatternError otherwise."""
    number = whole_number(value)
    if number is None:
        raise PatternTypeError(
            f"{name}: wanted an integer >= {least}, got {shown(value)} of type {kind(value)}. {_hint(value)}"
        )
    if number < least:
        raise PatternError(f"{name}: wanted an integer >= {least}, got {shown(number)}. Give at least {least}.")
    if number > most:
        raise PatternError(f"{name}: wanted an integer <= {most}, got {shown(number)}. Give at most {most}.")
    return number


def integers(name: str, values: object, least: int) -> tuple[int, ...]:
    """A tuple, list or one-dimensional integer array as a tuple of ints >= `least`."""
    if isinstance(values, np.ndarray):
        if values.ndim != 1 or (values.dtype.kind not in "iu" and values.size):
            raise PatternTypeError(
                f"{name}: wanted a one-dimensional array of integers, got shape {values.shape} and dtype "
                f"{values.dtype}. Pass a tuple of ints, or convert the array first."
            )
        values = values.tolist()
    elif is_array(values):
        values = values.tolist()  # type: ignore[attr-defined]  # another framework's array, on whatever device
    if not isinstance(values, (tuple, list, range)):
        raise PatternTypeError(
            f"{name}: wanted a tuple, list or NumPy array of integers, got {shown(values)} of type {kind(values)}. "
            f"Write ({shown(values)},) if you mean one number."
        )
    if values[MOST_NUMBERS:]:  # a range may be longer than len() can say
        raise PatternError(f"{name}: wanted at most {MOST_NUMBERS} numbers, got more. Give a count or a period.")
    return tuple(integer(f"{name}[{at}]", value, least) for at, value in enumerate(values))


def per_axis(name: str, value: object, axes: int, least: int) -> tuple[int, ...]:
    """One integer for every axis, or a sequence with one per axis."""
    if is_integer(value):
        return (integer(name, value, least),) * axes
    if not (isinstance(value, Iterable) and isinstance(value, Sized)) or isinstance(value, (str, bytes)):
        return (integer(name, value, least),)  # raises, with the message for a single number
    numbers = integers(name, value, least)
    if len(numbers) != axes:
        raise PatternError(
            f"{name}: wanted one number for each of the {axes} axes of shape, got {len(numbers)} numbers: {numbers}. "
            "Give one per axis, or a single int for all."
        )
    return numbers


def _hint(value: object) -> str:
    if isinstance(value, (float, np.floating)):
        return "Round it yourself, for example with int(...) or //."
    if isinstance(value, (bool, np.bool_)):
        return "True and False are not sizes; write 1 or 0."
    return "Pass a Python or NumPy integer."
