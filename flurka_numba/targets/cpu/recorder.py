"""What the schedules of both directions have in common: launches of a plan's functions, and sums over splits."""

from __future__ import annotations

from flurka_numba.problem import Problem
from flurka_numba.targets.cpu import host
from flurka_numba.targets.cpu.entries import entry_of
from flurka_numba.targets.cpu.plan import SOFTMAX, CpuPlan
from splat_numba.gen.schedules.array_schedule import ArrayScheduleBuilder

# Work items of a sum over a sequence: enough for a few dozen threads, and never depending on how many there are.
ITEMS = 64
LEAST_ROWS = 1024  # of a split: adding splits up is then a small part of the work


def split_count(units: int, rows: int) -> int:
    """Into how many splits a sum over ``rows`` is cut, where there are ``units`` of such sums."""
    return max(1, min(-(-ITEMS // max(units, 1)), rows // LEAST_ROWS))


class CpuRecorder:
    """A builder for one plan and problem. Arrays of our own are contiguous, (batch, heads, ...), their last two axes
    padded with zeros to whole register tiles; partial sums have an axis of splits before those.
    """

    def __init__(self, plan: CpuPlan, problem: Problem, *arguments: str) -> None:
        self.plan, self.problem = plan, problem
        self.builder = ArrayScheduleBuilder(*arguments)
        self.of_heads = problem.batch, problem.heads
        self.heads = problem.batch * problem.heads

    @property
    def kept(self) -> int:
        """Features that are not pads, of one part: random features' are two parts for rfa; and see Problem."""
        if not self.plan.linear:
            return self.problem.head_dim
        if self.plan.feature_map == SOFTMAX:
            return self.problem.rank
        return self.problem.features // self.parts

    @property
    def parts(self) -> int:
        """Of a row's features: cosines and sines for rfa."""
        return 2 if self.plan.feature_map == "rfa" else 1

    @property
    def features(self) -> int:
        """Of a row, padded."""
        return self.parts * self.plan.padded(self.kept)

    def launch(self, name: str, items: int, arrays: dict[str, str], **numbers: int) -> None:
        """One entry function over all its work items; arrays that are not listed have their parameter's name."""
        entry = entry_of(self.plan, name)
        named = {one.name: arrays.get(one.name, one.name) for one in entry.parameters if one.axes}
        given = {"kept": self.kept, **numbers}
        wanted = [one.name for one in entry.parameters if not one.axes]
        self.builder.launch(entry, items, named, {name: given[name] for name in wanted})

    def empty(self, name: str, *shape: int) -> str:
        """An array of our own for every head, not filled."""
        return self.builder.fresh(name, self.plan.compute_dtype, *self.of_heads, *shape)

    def zeros(self, name: str, *shape: int) -> str:
        """An array of our own for every head."""
        return self.builder.fresh(name, self.plan.compute_dtype, *self.of_heads, *shape, zeroed=True)

    def fold(self, partial: str, splits: int, *block: int) -> str:
        """The sum over the splits of (batch, heads, splits, *block)."""
        if splits == 1:
            return self.builder.compute(f"whole_{partial}", host.first_split, partial)
        total = self.empty(f"whole_{partial}", *block)
        self.launch("fold", self.heads, {"partial": partial, "total": total})
        return total
