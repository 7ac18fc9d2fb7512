"""Passes of a mask in closed form: terms grouped by rows, tile sizes from counted work."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from splat_numba.formats.closed_form import Edge, Term
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.cost import count_pass, predict
from splat_numba.gen.rows.passes import ClosedPass, CpuCandidate, Segment
from splat_numba.gen.rows.tile_choice import fitting_tiles, tile_choice, tile_words

TILES_Q = (16, 32, 64, 128)
TILES_KV = (32, 64, 128)
# Of queries and of keys, until tiles are chosen; and where fewer rows would copy the same keys too often.
USUAL_TILE = 64
TYPICAL_LENGTHS = (16, 64, 1024, 2048, 4096, 8192)  # that tiles are chosen for; lengths beyond as the last
# Of the least predicted time: strided(5), at 1.06, took 6 % longer; blocked(64), at 1.046, as long with either size.
SHARED_WITHIN = 1.05
SCORES = 64 * 64  # 16 KiB of float32 scores: half of a first-level cache; 128 x 128 took 1.25 times as long a pair


def closed_passes(
    terms: tuple[Term, ...], problem: Problem, machine: Machine
) -> tuple[list[ClosedPass], list[Choice], int]:
    """Passes with the tiles of the least predicted time, why those, and the number of bands."""
    drafts = _drafts(terms)
    bands = sum(term.lattice.step if term.lattice.diagonal else 1 for term in terms)
    if not drafts:
        return [], [], bands
    tried = _try_tiles(drafts, problem, machine)
    best = _shared_tiles(tried)
    lengths = _typical_lengths(problem)
    typical = "" if lengths == (problem.seq_q, problem.seq_kv) else f" for {lengths[0]} x {lengths[1]} tokens"
    return _with_tiles(drafts, best), [tile_choice("tiles", tried, best, typical)], bands


def _shared_tiles(tried: dict[tuple[int, int], float]) -> tuple[int, int]:
    """The sizes of the least predicted time, or those that most masks share, where these hardly take longer: a text of
    other sizes is one more to compile, for seconds.

    Masks with steps copy every tile's values: with 32 rows strided(4) to (32) took 7 to 8 % longer than with 128, with
    64 at most 2.2 % (benchmarks/results/cpu_forms.md). So those share a second size, and none has a third.
    """
    least = min(tried, key=lambda sizes: (tried[sizes], sizes))
    usual = min(tried, key=lambda sizes: (sizes[0], -sizes[1]))  # no other has less padding at a window's edges
    shared = (usual, (USUAL_TILE, USUAL_TILE))
    return next((sizes for sizes in shared if tried.get(sizes, math.inf) <= SHARED_WITHIN * tried[least]), least)


def closed_candidates(terms: tuple[Term, ...], problem: Problem, machine: Machine) -> list[CpuCandidate]:
    """The passes with each of the tile sizes: those that closed_passes() takes, then the fastest first."""
    drafts = _drafts(terms)
    if not drafts:
        return []
    tried = _try_tiles(drafts, problem, machine)
    best = _shared_tiles(tried)
    order = sorted(tried, key=lambda sizes: (sizes != best, tried[sizes]))
    return [CpuCandidate(tile_words(sizes), tried[sizes], tuple(_with_tiles(drafts, sizes))) for sizes in order]


def _drafts(terms: tuple[Term, ...]) -> list[ClosedPass]:
    """One pass for every row range and row step: bands over the same row blocks share the pass."""
    groups: dict[tuple[Edge, Edge | None, int], list[Segment]] = {}
    for term in terms:
        row_step = term.lattice.step if term.lattice.diagonal else 1
        groups.setdefault((term.row_lo, term.row_hi, row_step), []).append(Segment(term.lattice, term.lo, term.hi))
    drafts: list[ClosedPass] = []
    for (row_lo, row_hi, row_step), segments in sorted(groups.items(), key=lambda item: _breadth(item[0][:2])):
        resumes = any(_overlaps(row_lo, row_hi, earlier) for earlier in drafts)
        drafts.append(ClosedPass(row_lo, row_hi, row_step, tuple(segments), USUAL_TILE, USUAL_TILE, resumes))
    return drafts


def _breadth(rows: tuple[Edge, Edge | None]) -> tuple[int, int]:
    """Sort key: passes over all rows first, because later ones can resume what they leave."""
    row_lo, row_hi = rows
    return (row_hi is not None) + (row_lo != Edge(0)), row_lo.value


def _interval(row_lo: Edge, row_hi: Edge | None) -> tuple[float, float, bool | None]:
    """(lo, hi, aligned) of a row range; aligned None where only 0 and the end bound it."""
    low = -np.inf if row_lo == Edge(0) else float(row_lo.value)
    high = np.inf if row_hi is None else float(row_hi.value)
    bounded = [edge.aligned for edge in (row_lo, row_hi) if edge is not None and edge != Edge(0)]
    return low, high, bounded[0] if bounded else None


def _overlaps(row_lo: Edge, row_hi: Edge | None, earlier: ClosedPass) -> bool:
    """Whether two row ranges may share a row (True where the lengths decide)."""
    low, high, aligned = _interval(row_lo, row_hi)
    other_low, other_high, other_aligned = _interval(earlier.row_lo, earlier.row_hi)
    if None not in (aligned, other_aligned) and aligned != other_aligned:
        return True
    return max(low, other_low) < min(high, other_high)


def covers_all_rows(passes: list[ClosedPass]) -> bool:
    """Whether the passes that do not resume provably visit every row; then resuming ones find a written state."""
    spans = [_interval(one.row_lo, one.row_hi) for one in passes if not one.resumes]
    if len({aligned for *_, aligned in spans if aligned is not None}) > 1:
        return False
    reached = -np.inf
    for low, high, _ in sorted(spans, key=lambda span: span[0]):
        if low > reached:
            return False
        reached = max(reached, high)
    return reached == np.inf


def _with_tiles(drafts: list[ClosedPass], sizes: tuple[int, int]) -> list[ClosedPass]:
    return [replace(draft, tile_q=sizes[0], tile_kv=sizes[1]) for draft in drafts]


def _try_tiles(drafts: list[ClosedPass], problem: Problem, machine: Machine) -> dict[tuple[int, int], float]:
    """Predicted seconds of every tile size, from counted work at the nearest of a few lengths.

    One size for all passes, because each size is a set of functions to compile (a plan of 8 passes with 6 sizes took
    28 s); and a few lengths, because the text holds the size, so that calls of many lengths share a kernel.
    """
    seq_q, seq_kv = _typical_lengths(problem)
    tried: dict[tuple[int, int], float] = {}
    for tile_q in fitting_tiles(TILES_Q, problem, machine):
        for tile_kv in TILES_KV:
            if tile_q * tile_kv <= SCORES:
                passes = _with_tiles(drafts, (tile_q, tile_kv))
                counts = [count_pass(one, seq_q, seq_kv) for one in passes]
                tried[tile_q, tile_kv] = sum(
                    predict(count, problem, machine, tile_q, resumes=one.resumes)
                    for count, one in zip(counts, passes, strict=True)
                )
    return tried


def _typical_lengths(problem: Problem) -> tuple[int, int]:
    return _typical_length(problem.seq_q), _typical_length(problem.seq_kv)


def _typical_length(length: int) -> int:
    """The length that tiles are chosen for: a decoding step, a short sequence, or a power of two up to 8192."""
    return next((typical for typical in TYPICAL_LENGTHS if length <= typical), TYPICAL_LENGTHS[-1])
