"""Plain values: what counts as an integer, a number or a flag, and how any object is shown in a message.

Strangers' objects are asked nothing that may raise: whatever comes out of their methods is taken for "it is none".
"""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

SHOWN = 40  # characters of a value in a message


def whole_number(value: object) -> int | None:
    """An integer of Python or NumPy (or what says that it is one) as an int; None for all else, bool and arrays too."""
    if type(value) is int:
        return value
    if isinstance(value, (bool, np.bool_, np.ndarray)) or not hasattr(type(value), "__index__"):
        return None
    try:
        if "bool" in str(getattr(value, "dtype", "")):  # of a tensor: as little a size as True is
            return None
        return operator.index(value)  # type: ignore[arg-type]  # whatever it is, failing is an answer
    except Exception:  # noqa: BLE001 - as above
        return None


def real_number(value: object) -> float | None:
    """A real number of Python or NumPy as a float, infinite beyond its range; None for all else, bool too."""
    if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
        return None
    try:
        return float(value)
    except OverflowError:
        return float("inf") if value > 0 else float("-inf")


def duration(seconds: float) -> str:
    """A time to three digits in the unit that suits it: us, ms, s, min or h."""
    seconds = float(f"{seconds:.3g}")  # first, as 999.9 us are 1 ms
    _, unit, size = next(one for one in _UNITS if seconds >= one[0])
    value = seconds / size
    return f"{value:,.0f} {unit}" if value >= 100 else f"{value:.3g} {unit}"


# From how many seconds on a unit is used, its name and its seconds.
_UNITS = ((7200.0, "h", 3600.0), (120.0, "min", 60.0), (1.0, "s", 1.0), (1e-3, "ms", 1e-3), (0.0, "us", 1e-6))


def counted(number: int, name: str) -> str:
    """So many of what a regular noun names: 1 band, 1,000 bands."""
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def memory_size(nbytes: int) -> str:
    """Bytes in the unit that keeps the number short."""
    value, unit = float(nbytes), 0
    while value >= 1000 and unit + 1 < len(_BYTE_UNITS):
        value, unit = value / 1024, unit + 1
    return f"{value:,.{1 if value < 10 else 0}f} {_BYTE_UNITS[unit]}"


_BYTE_UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def flag(value: object) -> bool | None:
    """True or False, NumPy's too; None for all else."""
    return bool(value) if isinstance(value, (bool, np.bool_)) else None


def real_array(value: object) -> NDArray[np.float64] | None:
    """An array of real numbers in float64, of NumPy or of what NumPy can read; None for all else, masked arrays too."""
    if isinstance(value, np.ma.MaskedArray):
        return None
    try:
        array = np.asarray(value)
        return array.astype(np.float64) if array.dtype.kind in "fiubV" else None  # V: bfloat16 of ml_dtypes
    except Exception:  # noqa: BLE001 - lists of unequal lists, tensors elsewhere, a stranger's __array__
        return None


def shown(value: object, most: int = SHOWN) -> str:
    """``repr(value)``, short, for every object."""
    try:
        text = repr(value)
    except Exception:  # noqa: BLE001 - an int of more than 4,300 digits, or a stranger's __repr__
        return f"an integer of {value.bit_length()} bits" if isinstance(value, int) else f"one of {kind(value)}"
    return text if len(text) <= most else text[: most - 3] + "..."


def cause(error: BaseException) -> str:
    """What an error says; of the system's, such as a full disk, without its number and the file's name."""
    return getattr(error, "strerror", None) or str(error)


def kind(value: object) -> str:
    """The name of a value's type."""
    return type(value).__name__
