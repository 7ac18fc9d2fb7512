"""Passes of a mask given by its runs: the order of rows, and a tile table for each pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.geometry import BandTable
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.cost import count_pass, predict
from splat_numba.gen.rows.cover import lattice_cover, natural_cover
from splat_numba.gen.rows.passes import CpuCandidate, TablePass, TileTable
from splat_numba.gen.rows.tile_choice import fitting_tiles, tile_choice, tile_words
from splat_numba.plain import duration

TILES_Q = (16, 64)  # a lane's place in a table is a bit of 64; few sizes, so that irregular masks share kernels
TILE_KV = 64
MOST_STEPS = 4  # steps that get a pass of their own
LEAST_MASS, LEAST_KEYS = 0.02, 4  # of all pairs, and on average a row: below, a step is not worth a pass


def table_passes(table: BandTable, problem: Problem, machine: Machine) -> tuple[list[TablePass], list[Choice], int]:
    """Rows in order for runs without a step; runs of one step in residue classes where that computes less."""
    steps = np.repeat(table.step, np.diff(table.band_ptr))
    everything = np.ones(steps.size, np.bool_)
    natural, choice = _choose_cover(partial(natural_cover, table, everything), problem, machine, resumes=False)
    passes, choices, least = [natural], [choice], _seconds([natural], problem, machine)
    regrouped = _regrouped(table, steps)
    if regrouped:
        split = _split_passes(table, regrouped, problem, machine)
        seconds = _seconds([one for one, _ in split], problem, machine)
        if seconds < least:
            passes, choices = [one for one, _ in split], [choice for _, choice in split]
        names = ", ".join(str(step) for step in regrouped)
        words = (f"rows regrouped by residue for steps {names}", f"predicted {duration(seconds)}")
        order = ("rows in order", f"predicted {duration(least)}")
        taken, refused = (words, order) if seconds < least else (order, words)
        choices.append(Choice("order of rows", taken[0], taken[1], (refused,)))
    return passes, choices, len(table.step)


def table_candidates(table: BandTable, problem: Problem, machine: Machine) -> list[CpuCandidate]:
    """Rows in order with each of the tile heights; and regrouped, where there is something to regroup."""
    steps = np.repeat(table.step, np.diff(table.band_ptr))
    everything = np.ones(steps.size, np.bool_)
    tried = _try_covers(partial(natural_cover, table, everything), problem, machine, resumes=False)
    found = [
        CpuCandidate(f"rows in order, {tile_words(sizes)}", seconds, (one,)) for sizes, (seconds, one) in tried.items()
    ]
    regrouped = _regrouped(table, steps)
    if regrouped:
        split = [one for one, _ in _split_passes(table, regrouped, problem, machine)]
        tiles = ", then ".join(tile_words((one.tile_q, one.tile_kv)) for one in split)
        words = f"rows regrouped by residue for steps {', '.join(map(str, regrouped))}, {tiles}"
        found.append(CpuCandidate(words, _seconds(split, problem, machine), tuple(split)))
    return found


def _seconds(passes: list[TablePass], problem: Problem, machine: Machine) -> float:
    return sum(
        predict(count_pass(one, problem.seq_q, problem.seq_kv), problem, machine, one.tile_q, resumes=one.resumes)
        for one in passes
    )


def _regrouped(table: BandTable, steps: NDArray[np.int64]) -> dict[int, NDArray[np.bool_]]:
    """Runs by step, for the few steps that hold most of the mass and of which no row has two residues."""
    found: dict[int, NDArray[np.bool_]] = {}
    kept = table.hi - table.lo
    strided = np.unique(table.step[table.step > 1])
    mass = np.bincount(np.searchsorted(strided, steps[steps > 1]), kept[steps > 1], strided.size)
    for step in strided[np.argsort(-mass)][:MOST_STEPS]:
        chosen = steps == step
        rows, enough = table.row[chosen], max(LEAST_MASS * kept.sum(), LEAST_KEYS * np.count_nonzero(chosen))
        if np.unique(rows).size == rows.size and kept[chosen].sum() >= enough:
            found[int(step)] = chosen
    return found


def _split_passes(
    table: BandTable, regrouped: dict[int, NDArray[np.bool_]], problem: Problem, machine: Machine
) -> list[tuple[TablePass, Choice]]:
    """A pass in the rows' order for the runs that are not regrouped, which also visits empty rows; one per step."""
    left = ~np.logical_or.reduce(list(regrouped.values()))
    passes = [_choose_cover(partial(natural_cover, table, left), problem, machine, resumes=False)]
    for step, chosen in regrouped.items():
        by_residue = partial(lattice_cover, table, chosen, step)
        passes.append(_choose_cover(by_residue, problem, machine, resumes=True))
    return passes


def _choose_cover(
    build: Callable[[int, int], TileTable], problem: Problem, machine: Machine, *, resumes: bool
) -> tuple[TablePass, Choice]:
    """The table with the least predicted time over the tile heights."""
    tried = _try_covers(build, problem, machine, resumes=resumes)
    best = min(tried, key=lambda sizes: (tried[sizes][0], sizes))
    choice = tile_choice("tiles of a table pass", {sizes: seconds for sizes, (seconds, _) in tried.items()}, best)
    return tried[best][1], choice


def _try_covers(
    build: Callable[[int, int], TileTable], problem: Problem, machine: Machine, *, resumes: bool
) -> dict[tuple[int, int], tuple[float, TablePass]]:
    """The tables of all tile heights with their predicted seconds; 64 keys a tile."""
    tried: dict[tuple[int, int], tuple[float, TablePass]] = {}
    for tile_q in fitting_tiles(TILES_Q, problem, machine):
        table = build(tile_q, TILE_KV)
        one = TablePass(table, tile_q, TILE_KV, resumes)
        tried[tile_q, TILE_KV] = _seconds([one], problem, machine), one
    return tried
