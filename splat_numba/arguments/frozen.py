"""Names of arguments whose gradients are not wanted."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import shown


def check_frozen(frozen: Collection[str], names: Sequence[str]) -> frozenset[str]:
    """The names, which must be of ``names``. Raises ArgumentError, ArgumentTypeError."""
    try:
        given = None if isinstance(frozen, str) else [*frozen]
    except Exception:  # noqa: BLE001 - what cannot be iterated, for whatever reason, is no collection
        given = None
    if given is None:
        raise ArgumentTypeError(
            f"frozen wanted as a collection of names, got {shown(frozen)}. Give for example "
            f"frozen=({', '.join(map(repr, names[-2:]))})."
        )
    unknown = [name for name in given if not isinstance(name, str) or name not in names]
    if unknown:
        raise ArgumentError(
            f"frozen wanted with names of {', '.join(names)}, got {shown(unknown[0])}. Leave it out, or correct it."
        )
    return frozenset(given)
