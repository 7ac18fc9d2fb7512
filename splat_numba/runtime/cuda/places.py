"""Where a schedule's launches find what changes from call to call: addresses in buffers, and tensor maps."""

from __future__ import annotations

from splat_numba.gen.schedules.schedule import Place, Schedule
from splat_numba.gen.schedules.tensor_map import MAP_BYTES, BoxMap

MAPS = "maps"  # the buffer of tensor maps, which is a machine's own


def maps_of(schedule: Schedule) -> list[BoxMap]:
    """The tensor maps of all launches, in the order in which they stand in their buffer."""
    return [one for step in schedule.steps for several in step.maps.values() for one in several]


def pointers_of(schedule: Schedule) -> list[dict[str, Place]]:
    """Of every launch its parameters that are addresses, by name, tensor maps' too."""
    found, at = [], 0
    for step in schedule.steps:
        pointers = dict(step.pointers)
        for name, several in step.maps.items():
            pointers[name] = Place(MAPS, at)
            at += MAP_BYTES * len(several)
        found.append(pointers)
    return found
