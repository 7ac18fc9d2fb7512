"""Which launches make a call's gradients, in which order: whose heads, by which pass, stored how.

A gradient is stored once where one launch makes all of it. Where several do, the passes of a mask or the masks of heads
that share their keys, the first stores sums and the others add to them, one after the other, and the last pass of a
mask may round its rows. Where slopes are kept, a launch of keys is followed by the one that reads them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from splat_numba.gen.boxes.passes import BoxPass, Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES, BackwardPlan, Wanted
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import (
    ADDED,
    FINISHED,
    NOWHERE,
    READ,
    ROUNDED,
    STAGED,
    WRITTEN,
    Kernels,
)
from splat_numba.gen.targets.gpu.launches import boxes_of
from splat_numba.gen.targets.gpu.owners import Owners, owners_of
from splat_numba.gen.targets.gradients import GradientCall, HeadsPlan

Candidates = Callable[[Problem, str, Gpu], tuple[tuple[Traits, ...], Kernels]]
"""A target's tiles for the gradients of queries or keys, and which gradients each of its kernels makes."""


@dataclass(frozen=True, slots=True)
class GradientLaunch:
    """One launch: its pass, who owns its gradients, and whose plan it is. of: QUERIES or KEYS; makes: of "dq", or of
    "dk" and "dv"; stored, slopes: as in gradient_kernels.
    """

    planned: BoxPass
    owners: Owners
    of: str
    makes: tuple[str, ...]
    stored: str
    of_plan: HeadsPlan
    slopes: str = NOWHERE

    @property
    def listed(self) -> int:
        """Heads on the other side, of all owners."""
        return sum(map(len, self.owners.others))


def in_order(plans: Sequence[HeadsPlan], call: GradientCall, candidates: Candidates) -> list[GradientLaunch]:
    """All launches; where slopes are kept, some key heads' after the others', each before the one that reads them."""
    found = _launches([one for one in plans if not _keeps(one.planned, call.wanted)], QUERIES, call, candidates)
    of_keys = _launches(plans, KEYS, call, candidates)
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
    owners = owners_of(heads, call.group, of_queries=True)
    return GradientLaunch(planned, owners, QUERIES, ("dq",), ROUNDED, writer.of_plan, READ)


def _launches(plans: Sequence[HeadsPlan], of: str, call: GradientCall, candidates: Candidates) -> list[GradientLaunch]:
    """In the order in which they add up; each of a mask's passes, and of kernels that make one gradient each, one."""
    found: list[GradientLaunch] = []
    begun: set[int] = set()
    owners = [owners_of(one.heads, call.group, of_queries=of == QUERIES) for one in plans]
    several = len(owners) > 1 and sum(len(one.heads) for one in owners) > len({h for one in owners for h in one.heads})
    for one, mine in zip(plans, owners, strict=True):
        passes = _passes(one.planned, of)
        slopes = WRITTEN if of == KEYS and _keeps(one.planned, call.wanted) else NOWHERE
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
                    GradientLaunch(planned, some, of, names, stored, one, slopes)
                    for names in _kernels(one.planned, of, call.wanted, candidates)
                    if names or slopes
                ]
        begun.update(mine.heads)
    return found


def _kernels(plan: BackwardPlan, of: str, wanted: Wanted, candidates: Candidates) -> list[tuple[str, ...]]:
    """Which gradients each kernel makes, of those that are wanted."""
    problem = plan.problem if of == QUERIES else plan.problem.transposed()
    _, kernels = candidates(problem, of, plan.gpu)
    return [tuple(name for name in names if name in wanted.names) for names in kernels]


def _passes(plan: BackwardPlan, of: str) -> list[BoxPass]:
    return [boxes_of(one) for one in (plan.queries if of == QUERIES else plan.keys)]
