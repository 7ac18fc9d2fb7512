"""The transpose of a run table by a sweep over rows; its cost follows the runs that go in and come out, not the pairs.

Runs are grouped into classes of one lattice (step, start mod step); in lattice coordinates each is an interval. The
rows of a class are cut into tracks, stretches of rows with equal gaps. Along a track, the columns that a row has and
the row before it has not begin a run of the transposed mask, those that only the row before has end one, and the k-th
beginning of a column belongs to its k-th end.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.run_table import Runs, check_shape, csr_order, from_columns, from_triples, rows_of
from splat_numba.formats.sweep import Ints, exclusive_sum, expand, order_of, sweep


@dataclass(frozen=True, slots=True)
class _Tracks:
    """Rows as places on tracks. Place p of track t is the row row_start[t] + row_step[t] * (p - first_place[t]).

    Every track has one place more than rows, so that the last row, too, is followed by a place where it ends.
    """

    lattice_step: Ints  # (tracks,) column step of the track's lattice
    lattice_start: Ints  # (tracks,) its residue
    row_start: Ints  # (tracks,)
    row_step: Ints  # (tracks,)
    first_place: Ints  # (tracks,) in the numbering of all places of all tracks
    place: Ints  # (runs,) place of each run's row
    track: Ints  # (places,) track of each place


def transpose(runs: Runs) -> Runs:
    """Runs of the transposed mask, shape (cols, rows). Its time and memory do not depend on the lengths of the runs.

    They follow the input's runs and the output's: every new run costs one beginning and one end.
    """
    shape = check_shape((runs.shape[1], runs.shape[0]))
    if runs.start.size == 0:
        return from_triples(shape, [], [], [], [])
    tracks = _tracks(runs)
    lo = runs.start // runs.step
    place = np.concatenate((tracks.place, tracks.place + 1))  # a row is compared with the place before and after it
    weight = np.repeat(np.array([1, -1], np.int8), lo.size)
    place, lo, hi, change = sweep(place, np.tile(lo, 2), np.tile(lo + runs.count, 2), weight)
    begin_column, begin_place = _events(tracks, place, lo, hi, change > 0)
    _, end_place = _events(tracks, place, lo, hi, change < 0)
    track = tracks.track[begin_place]
    column = tracks.lattice_start[track] + tracks.lattice_step[track] * begin_column
    row = tracks.row_start[track] + tracks.row_step[track] * (begin_place - tracks.first_place[track])
    return from_triples(shape, column, row, tracks.row_step[track], end_place - begin_place)


def _events(tracks: _Tracks, place: Ints, lo: Ints, hi: Ints, chosen: NDArray[np.bool_]) -> tuple[Ints, Ints]:
    """(lattice column, place) of every element of the chosen intervals, sorted by (track, column, place)."""
    place, lo, count = place[chosen], lo[chosen], (hi - lo)[chosen]
    column = expand(lo, np.ones_like(lo), count)
    place = np.repeat(place, count)
    order = order_of(tracks.track[place], column)  # stable: places ascend already
    return column[order], place[order]


def _tracks(runs: Runs) -> _Tracks:
    """Group the runs by lattice and cut each lattice's rows into tracks."""
    row = rows_of(runs)
    residue = runs.start % runs.step
    lattice, lattice_step, lattice_start = _lattices(runs.step, residue)
    # The rows of each lattice, as a table with a row per lattice, whose runs are the tracks.
    order = order_of(lattice, row)
    lattice, row = lattice[order], row[order]
    new = np.concatenate(([True], (lattice[1:] != lattice[:-1]) | (row[1:] != row[:-1])))
    indptr = exclusive_sum(np.bincount(lattice[new], minlength=lattice_step.size))
    table = from_columns((lattice_step.size, runs.shape[0]), indptr, row[new])
    places = table.count + 1
    first_place = exclusive_sum(places)
    place_of_row = _places(table, first_place)
    place = np.empty_like(row)
    place[order] = place_of_row[np.cumsum(new) - 1]
    owner = rows_of(table)
    return _Tracks(
        lattice_step=lattice_step[owner],
        lattice_start=lattice_start[owner],
        row_start=table.start,
        row_step=table.step,
        first_place=first_place[:-1],
        place=place,
        track=np.repeat(np.arange(places.size), places),
    )


def _places(table: Runs, first_place: Ints) -> Ints:
    """The place of every (lattice, row) of the table, with the rows of a lattice ascending."""
    packed = expand(first_place[:-1], np.ones_like(table.count), table.count)
    order = csr_order(table)
    return packed if order is None else packed[order]


def _lattices(step: Ints, residue: Ints) -> tuple[Ints, Ints, Ints]:
    """Number the distinct (step, residue): the number of each run, and the step and residue of each number."""
    order = order_of(step, residue)
    step, residue = step[order], residue[order]
    new = np.concatenate(([True], (step[1:] != step[:-1]) | (residue[1:] != residue[:-1])))
    number = np.empty_like(step)
    number[order] = np.cumsum(new) - 1
    return number, step[new], residue[new]
