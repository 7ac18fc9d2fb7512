"""How much a test tries: little where every commit waits for it, much where new failures are looked for."""

from collections.abc import Collection, Iterable
from itertools import cycle, product
from typing import Any

from hypothesis import settings

EXPLORING = settings.get_current_profile_name() in {"explore", "nightly"}


def draws(few: int) -> int:
    """``few`` examples, and twenty times as many in the profiles that explore."""
    return 20 * few if EXPLORING else few


def by_place(cases: Iterable[Any], options: Collection[Any]) -> list[tuple[Any, Any]]:
    """Each case with one of the options by its place, so that all are met; in the profiles that explore, with each."""
    return list(product(cases, options) if EXPLORING else zip(cases, cycle(options), strict=False))
