"""Which launches make a call's gradients, in which order: whose heads, by which pass, stored how.

A gradient is stored once where one launch makes all of it. Where several do, the passes of a mask or the masks of heads
that share their keys, the first stores float32 and the others add to it, one after the other, and the last pass of a
mask rounds its rows. Where slopes are kept, a launch of keys is followed by the one that reads them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from splat_numba.gen.backward import KEYS, QUERIES, BackwardPlan, Wanted
from splat_numba.gen.boxes import BoxPass
from splat_numba.gen.targets.gpu.owners import Owners, owners_of
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan
from splat_numba.gen.targets.sm90.backward.kept import reads
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm90.backward.traits import (
    ADDED,
    FINISHED,
    NOWHERE,
    ROUNDED,
    STAGED,
    WRITTEN,
    BackwardTraits,
)


@dataclass(frozen=True, slots=True)
class GradientLaunch:
    """One launch: its pass, who owns its gradients, the text's traits, and whose plan it is."""

    planned: BoxPass
    owners: Owners
    traits: BackwardTraits
    of_plan: HeadsPlan

    @property
    def listed(self) -> int:
        """Heads on the other side, of all owners."""
        return sum(map(len, self.owners.others))


def in_order(plans: Sequence[HeadsPlan], call: GradientCall) -> list[GradientLaunch]:
    """All launches; where slopes are kept, some key heads' after the others', each before the one that reads them."""
    found = _launches([one for one in plans if not _keeps(one.planned, call.wanted)], QUERIES, call)
    of_keys = _launches(plans, KEYS, call)
    for one in plans:
        mine = [launch for launch in of_keys if launch.of_plan is one]
        if not _keeps(one.planned, call.wanted):
            found += mine
            continue
        heads = list(dict.fromkeys(head for launch in mine for head in launch.owners.heads))
        for first in range(0, len(heads), one.planned.heads_at_once):
            some = heads[first : first + one.planned.heads_at_once]
            for launch in mine:
                owners = launch.owners.only([head in some for head in launch.owners.heads])
                if owners.heads:
                    writer = replace(launch, owners=owners)
                    found += [writer, _reader(writer, call)]
    return found


def _keeps(plan: BackwardPlan, wanted: Wanted) -> bool:
    """Whether slopes are kept: without dq nobody reads them."""
    return plan.keys_first and wanted.q


def _reader(writer: GradientLaunch, call: GradientCall) -> GradientLaunch:
    """The launch that makes dq of the slopes that another one keeps, its heads in the same order."""
    heads = tuple(head for some in writer.owners.others for head in some)
    (planned,) = _passes(writer.of_plan.planned, QUERIES)
    return GradientLaunch(planned, owners_of(heads, call.group, of_queries=True), reads(planned.traits), writer.of_plan)


def _launches(plans: Sequence[HeadsPlan], of: str, call: GradientCall) -> list[GradientLaunch]:
    """In the order in which they add up; each of a mask's passes, and of kernels that make one gradient each, one."""
    found: list[GradientLaunch] = []
    begun: set[int] = set()
    owners = [owners_of(one.heads, call.group, of_queries=of == QUERIES) for one in plans]
    several = len(owners) > 1 and sum(len(one.heads) for one in owners) > len({h for one in owners for h in one.heads})
    for one, mine in zip(plans, owners, strict=True):
        passes = _passes(one.planned, of)
        staged = several or len(passes) > 1
        for number, planned in enumerate(passes):
            fresh = [number == 0 and head not in begun for head in mine.heads]
            last = FINISHED if not several and number == len(passes) - 1 else ADDED
            for result, kept in ((STAGED, fresh), (last, [not x for x in fresh])):
                some = mine.only(kept)
                if not some.heads:
                    continue
                stored = result if staged else ROUNDED
                found += [
                    GradientLaunch(planned, some, _traits(planned, of, names, stored, one.planned, call), one)
                    for names in _kernels(one.planned, of, call.wanted)
                ]
        begun.update(mine.heads)
    return found


def _kernels(plan: BackwardPlan, of: str, wanted: Wanted) -> list[tuple[str, ...]]:
    """Which gradients each kernel makes, of those that are wanted; none, where it is run for the slopes it keeps."""
    problem = plan.problem if of == QUERIES else plan.problem.transposed()
    _, kernels = candidates(problem, of, plan.gpu)
    found = [tuple(name for name in names if name in wanted.names) for names in kernels]
    return found if of == KEYS and _keeps(plan, wanted) else [names for names in found if names]


def _passes(plan: BackwardPlan, of: str) -> list[BoxPass]:
    return [one for one in (plan.queries if of == QUERIES else plan.keys) if isinstance(one, BoxPass)]


def _traits(
    planned: BoxPass, of: str, wanted: tuple[str, ...], result: str, plan: BackwardPlan, call: GradientCall
) -> BackwardTraits:
    kept = WRITTEN if of == KEYS and _keeps(plan, call.wanted) else NOWHERE
    padded = kept == WRITTEN and bool((planned.table.rows < 0).any())
    boxes = replace(planned.traits, resumes=False, hands_on=False)  # sums are added up in float32 instead
    return BackwardTraits(boxes, of, wanted, result, plan.conditions.ragged, kept, padded)
