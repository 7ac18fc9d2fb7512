"""Functions over ranges of work items: Numba's signature of an entry, and its call on the pool of threads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from numba import types

from splat_numba.gen.range_entry import Parameter, RangeEntry
from splat_numba.runtime.lanes import STORED
from splat_numba.runtime.threads import parallel_for

WHOLE = {"int64": types.int64, "uint64": types.uint64}


def signature_of(entry: RangeEntry) -> Any:
    """Of an entry's function: arrays of any strides unless packed, and read-only ones welcome where it only reads."""
    return types.int64(types.int64, types.int64, *map(_type_of, entry.parameters))


def _type_of(one: Parameter) -> Any:
    scalar = WHOLE.get(one.dtype) or STORED[one.dtype]
    if not one.axes:
        return scalar
    return types.Array(scalar, one.axes, "C" if one.packed else "A", readonly=not one.written)


def run(function: Callable[..., object], entry: RangeEntry, items: int, given: Mapping[str, Any], threads: int) -> None:
    """Call it for all work items. given: at least its parameters, by name."""
    arguments = tuple(given[one.name] for one in entry.parameters)

    def work(first: int, last: int) -> None:
        function(first, last, *arguments)

    parallel_for(items, work, threads)
