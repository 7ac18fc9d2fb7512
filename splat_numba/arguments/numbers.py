"""Real numbers and flags among the options."""

from __future__ import annotations

import math

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import flag, kind, real_number, shown


def check_number(name: str, value: object, advice: str, least: float = -math.inf) -> float:
    """``value`` as a finite float >= ``least``. Raises ArgumentError, ArgumentTypeError, which end with ``advice``."""
    number = real_number(value)
    if number is None:
        raise ArgumentTypeError(f"{name} wanted as a number, got {kind(value)}. {advice}")
    if not math.isfinite(number) or number < least:
        bound = "" if least == -math.inf else f" and >= {least:g}"
        raise ArgumentError(f"{name} wanted finite{bound}, got {shown(value)}. {advice}")
    return number


def check_flag(name: str, value: object) -> bool:
    """``value`` as a bool. Raises ArgumentTypeError."""
    found = flag(value)
    if found is None:
        raise ArgumentTypeError(
            f"{name} wanted as True or False, got {shown(value)} of type {kind(value)}. Give a bool."
        )
    return found
