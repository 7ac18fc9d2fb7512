"""Choices by measurement, whatever is timed and where: known from disk or timed once; and the words for explain()."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.targets.target import Candidate
from splat_numba.plain import duration
from splat_numba.runtime import cache
from splat_numba.runtime.choices import Choices
from splat_numba.settings import Settings

PATIENCE = 600  # seconds until another process has measured: it has several kernels to compile, and to time


def known_or_measured(
    facts: dict[str, Any], names: tuple[str, ...], measure: Callable[[], list[float]], settings: Settings
) -> dict[str, float]:
    """Seconds by candidate: read from disk, or measured and stored. Of several processes one measures."""
    folder = cache.folder(settings)
    if folder is None:
        return dict(zip(names, measure(), strict=True))
    store = Choices.of(folder, facts, names)
    if (found := store.read()) is not None:
        return found
    with cache.making(store.path, patience=PATIENCE):
        found = store.read()
        if found is None:
            found = dict(zip(names, measure(), strict=True))
            store.write(found)
    return found


def reason(
    best: Candidate, candidates: Sequence[Candidate], seconds: Mapping[str, float], where: str,
    predicted: str = "predicted",
) -> Choice:  # fmt: skip
    """What was measured, for explain(). predicted: what a candidate's own seconds are."""

    def words(one: Candidate) -> str:
        return f"measured {duration(seconds[one.name])}, {predicted} {duration(one.seconds)}"

    ordered = sorted(candidates, key=lambda one: seconds[one.name])
    refused = tuple((one.name, words(one)) for one in ordered if one is not best)
    why = f"{words(best)}, the least of {len(candidates)} timed on {where}"
    return Choice("order of rows and tiles", best.name, why, refused)
