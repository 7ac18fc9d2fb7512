"""Tile sizes that a machine can do, and the record of the one chosen."""

from __future__ import annotations

from splat_numba.errors import PlanError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Problem
from splat_numba.plain import duration


def fitting_tiles(sizes: tuple[int, ...], problem: Problem, machine: Machine) -> list[int]:
    """The tile heights that hold whole register tiles."""
    lanes = 2 * machine.lanes(ITEMSIZE[problem.compute_dtype])
    fitting = [size for size in sizes if size % lanes == 0]
    if not fitting:
        raise PlanError(f"machine wanted with at most {max(sizes)} lanes a register tile, got {lanes}.")
    return fitting


def tile_words(sizes: tuple[int, int]) -> str:
    """(tile_q, tile_kv) for people."""
    return f"{sizes[0]} queries x {sizes[1]} keys"


def tile_choice(what: str, tried: dict[tuple[int, int], float], best: tuple[int, int], lengths: str = "") -> Choice:
    """The choice of the tile sizes ``best`` among those ``tried``, (tile_q, tile_kv) -> predicted seconds.

    lengths: what the seconds are for, in words, where that is not the problem itself.
    """
    refused = tuple(
        (f"{tile_q} x {tile_kv}", f"predicted {duration(seconds)}")
        for (tile_q, tile_kv), seconds in sorted(tried.items(), key=lambda item: item[1])
        if (tile_q, tile_kv) != best
    )
    least = min(tried.values())
    beside = f"the least of {len(tried)}"
    if tried[best] > least:
        beside = f"{tried[best] / least - 1:.1%} above {beside}, and most masks share a text of these sizes"
    return Choice(what, tile_words(best), f"predicted {duration(tried[best])}{lengths}, {beside}", refused)
