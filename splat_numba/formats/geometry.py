"""Geometry: a mask as bands, each a set of rows times a lattice of columns with one interval per row.

In the coordinates of its lattice (column = residue + step * place) every run is an interval, so nothing is left of a
stride: a dilated window is a window, a strided mask is a rectangle. Design: "a strided lattice is a dense tile in
disguise"; SPLAT (Gupta et al., 2025) calls the same grouping of rows regrouping by stride.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.closed_form import Term, closed_form
from splat_numba.formats.convert import empty_mask
from splat_numba.formats.order import ordered
from splat_numba.formats.pattern_checks import integer
from splat_numba.formats.pattern_runs import check_lengths, check_listed, pattern_runs
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.runs import Runs, rows_of
from splat_numba.formats.sealed import Sealed
from splat_numba.formats.sweep import expand
from splat_numba.formats.transpose import transpose
from splat_numba.formats.transpose_terms import transpose_terms
from splat_numba.plain import counted, kind, shown
from splat_numba.signatures import strict

Ints = NDArray[np.int64]
LONGEST_LABEL = 40  # characters


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Band(Sealed):
    """Rows ``rows`` keep the columns residue + step * place for lo[k] <= place < hi[k]; arrays (number of rows,)."""

    residue: int
    step: int
    rows: Ints
    lo: Ints
    hi: Ints

    @property
    def nnz(self) -> int:
        """Number of kept pairs."""
        return int((self.hi - self.lo).sum())


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BandTable(Sealed):
    """All bands of one mask as columns: one entry per run, sorted by band, then row; arrays (number of runs,) int64.

    band_ptr: (bands + 1,) into the entries; step, residue: of every band's lattice.
    """

    shape: tuple[int, int]
    band_ptr: Ints
    step: Ints
    residue: Ints
    row: Ints
    lo: Ints
    hi: Ints


def band_table(runs: Runs) -> BandTable:
    """Runs grouped by lattice; a row's second run on a lattice goes to a second band, and so on."""
    row, step = rows_of(runs), runs.step
    residue = np.where(step == 1, 0, runs.start % step)
    lo = (runs.start - residue) // step
    order = np.lexsort((lo, row, residue, step))
    row, step, residue, lo = row[order], step[order], residue[order], lo[order]
    hi = lo + runs.count[order]
    fresh = np.ones(row.size, np.bool_)
    fresh[1:] = (row[1:] != row[:-1]) | (step[1:] != step[:-1]) | (residue[1:] != residue[:-1])
    heads = np.flatnonzero(fresh)
    rank = np.arange(row.size) - np.repeat(heads, np.diff(np.append(heads, row.size)))
    order = np.lexsort((row, rank, residue, step))
    row, step, residue, lo, hi, rank = (part[order] for part in (row, step, residue, lo, hi, rank))
    fresh[:1] = True
    fresh[1:] = (rank[1:] != rank[:-1]) | (step[1:] != step[:-1]) | (residue[1:] != residue[:-1])
    heads = np.flatnonzero(fresh)
    return BandTable(runs.shape, np.append(heads, row.size), step[heads], residue[heads], row, lo, hi)


class Geometry:
    """The bands of a mask, exact; in closed form (``terms``) where the pattern has one, in numbers on demand."""

    def __init__(self, shape: tuple[int, int] | None, terms: tuple[Term, ...] | None, runs: Runs | None) -> None:
        self.shape = shape
        self.terms = terms
        self._runs = runs
        self._pattern: Pattern | None = None
        self._straight: Geometry | None = None  # of the mask that this one is the transpose of

    @classmethod
    def of_pattern(cls, pattern: Pattern, shape: tuple[int, int] | None) -> Geometry:
        """Geometry of a pattern; without lengths it must have a closed form (ArgumentError otherwise)."""
        if shape is not None:
            check_lengths(pattern, *shape)
        terms = closed_form(pattern)
        if terms is None and shape is None:
            raise _lengths_missing(repr(pattern))
        geometry = cls(shape, terms, None)
        geometry._pattern = pattern
        return geometry

    def transposed(self) -> Geometry:
        """The geometry of the transposed mask: row j keeps column i where this one's row i keeps column j.

        What a backward pass needs: of a key, the queries that see it. In closed form where the terms turn
        (`transpose_terms`), for every length then; elsewhere the runs are turned, on demand. Raises ArgumentError where
        there is neither a closed form nor lengths.
        """
        if self._straight is not None:
            return self._straight
        terms = None if self.terms is None else transpose_terms(self.terms)
        if terms is None and self.shape is None:
            raise _lengths_missing(f"the transpose of {self._pattern!r}")
        turned = Geometry(None if self.shape is None else self.shape[::-1], terms, None)
        turned._straight = self
        return turned

    def __reduce__(self) -> tuple[Any, tuple[object, ...]]:
        if self._straight is not None:
            return Geometry.transposed, (self._straight,)
        if self._pattern is not None:
            return Geometry.of_pattern, (self._pattern, self.shape)
        return geometry, (None if self._runs is None else ACSR(self._runs),)  # which looks at the runs

    @property
    def label(self) -> str:
        """The pattern's constructors by name, for file names; "table" for a mask without a closed form."""
        if self.terms is None:
            return "table"
        if self._straight is not None:
            return f"transposed_{self._straight.label}"[:LONGEST_LABEL]
        text = ("" if self._pattern is None else repr(ordered(self._pattern))).replace(".align_end()", "")
        return "_".join(re.findall(r"[a-z_]+(?=\()", text))[:LONGEST_LABEL] or "mask"

    @cached_property
    def table(self) -> BandTable:
        """The bands in numbers, for the geometry's lengths."""
        return band_table(self.runs)

    @property
    def runs(self) -> Runs:
        """The mask's runs for the geometry's lengths, made at the first call."""
        if self._runs is None:
            if self._straight is not None:
                self._runs = transpose(self._straight.runs)
            elif self.shape is None or self._pattern is None:
                raise ArgumentError("seq_q and seq_kv wanted as integers, got None. Give both to geometry().")
            else:
                self._runs = pattern_runs(self._pattern, *self.shape)
        return self._runs

    def check_listed(self) -> None:
        """Raise FormatError where ``table`` has lattices whose places no memory holds one by one; it is not made."""
        if self._straight is not None:
            self._straight.check_listed()
        elif self._runs is None and self._pattern is not None and self.shape is not None:
            check_listed(self._pattern, *self.shape)

    def __len__(self) -> int:
        """Number of bands at the geometry's lengths."""
        return len(self.table.step)

    def __iter__(self) -> Iterator[Band]:
        table = self.table
        for k, (step, residue) in enumerate(zip(table.step, table.residue, strict=True)):
            part = slice(int(table.band_ptr[k]), int(table.band_ptr[k + 1]))
            yield Band(int(residue), int(step), table.row[part], table.lo[part], table.hi[part])

    @property
    def bands(self) -> tuple[Band, ...]:
        """All bands."""
        return tuple(self)

    def to_dense(self) -> NDArray[np.bool_]:
        """The mask, (seq_q, seq_kv) bool."""
        table = self.table
        mask = empty_mask(table.shape)
        per_band = np.diff(table.band_ptr)
        step, residue = np.repeat(table.step, per_band), np.repeat(table.residue, per_band)
        count = table.hi - table.lo
        mask[np.repeat(table.row, count), expand(residue + step * table.lo, step, count)] = True
        return mask

    def _repr_html_(self) -> str:
        from splat_numba.formats.drawing import geometry_html  # which is above, and needed in notebooks alone

        return geometry_html(self)

    def __repr__(self) -> str:
        closed = "no closed form" if self.terms is None else f"{counted(len(self.terms), 'term')} in closed form"
        return f"Geometry(shape={self.shape}, {closed})"


def _lengths_missing(mask: str) -> ArgumentError:
    return ArgumentError(
        f"seq_q and seq_kv wanted as integers, because {mask} has no closed form; got None. Give both lengths."
    )


@strict()
def geometry(mask: Pattern | ACSR | NDArray[np.bool_], seq_q: int | None = None, seq_kv: int | None = None) -> Geometry:
    """The bands of ``mask``: rows that share a lattice of columns, each with one interval of it.

    Parameters
    ----------
    mask : Pattern, ACSR or bool array (seq_q, seq_kv)
        What is to be analysed.
    seq_q, seq_kv : int
        The lengths, in tokens; taken from an ACSR or array, and must agree with it if given. A Pattern with a closed
        form does not need them until numbers are asked for.

    Returns
    -------
    Geometry
        Its bands; ``to_dense()`` of it is the mask.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For missing or disagreeing lengths, and for what is no mask.
    PatternError
        For lengths that do not fit the pattern.
    """
    if (seq_q is None) != (seq_kv is None):
        raise ArgumentError(
            f"seq_q and seq_kv wanted together, got {shown(seq_q)} and {shown(seq_kv)}. Give both, or neither."
        )
    given = None if seq_q is None or seq_kv is None else (integer("seq_q", seq_q, 0), integer("seq_kv", seq_kv, 0))
    if isinstance(mask, Pattern):
        return Geometry.of_pattern(mask, given)
    if isinstance(mask, np.ndarray):
        mask = ACSR.from_dense(mask)
    if not isinstance(mask, ACSR):
        raise ArgumentTypeError(
            f"mask wanted as a Pattern, an ACSR or a 2-D bool array, got {kind(mask)}. Build one, for example "
            "splat.window(128)."
        )
    if given is not None and given != mask.shape:
        raise ArgumentError(
            f"mask wanted of shape {given}, got {mask.shape}. Leave seq_q and seq_kv out, or correct them."
        )
    return Geometry(mask.shape, None, mask.runs)
