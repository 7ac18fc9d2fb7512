"""What the search for tiles asks of Hopper about gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.box_cost import Work
from splat_numba.gen.box_passes import BoxCandidate, search
from splat_numba.gen.boxes import Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.sm90.backward.tile_shapes import candidates
from splat_numba.gen.targets.sm90.backward.traits import KEYS, QUERIES
from splat_numba.gen.targets.sm90.cost import predict_work


@dataclass(frozen=True, slots=True)
class GradientTiles:
    """Hopper's tiles for the gradients of queries or keys. Raises PlanError for dims that no tile fits."""

    problem: Problem
    gpu: Gpu
    of: str

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        return candidates(self.problem, self.of, self.gpu)[0]

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        key, value = (-(-dim // 16) * 16 for dim in (traits.head_dim, traits.value_dim))
        dims = 2 * key + value if self.of == QUERIES else 2 * key + 2 * value
        return predict_work(work, traits, self.problem, self.gpu, dims)


def best(
    geometry: Geometry, problem: Problem, gpu: Gpu, of: str, conditions: Conditions
) -> tuple[BoxCandidate, tuple[Choice, ...]]:
    """What has the least predicted time, and why."""
    tiles = GradientTiles(problem, gpu, of)
    found = search(geometry.table, problem, tiles, ragged=conditions.ragged, negate=conditions.negate)
    (least,) = found.best(1)
    return least, tuple(named(one, of) for one in found.reasons(least))


def named(choice: Choice, of: str) -> Choice:
    """A choice of the search, which calls rows queries whatever they are, as one for gradients of ``of``."""
    what, chosen = f"{choice.what}, gradients of {of}", choice.chosen
    refused = choice.refused
    if of == KEYS:
        chosen, refused = _turned(chosen), tuple((_turned(name), why) for name, why in refused)
    return replace(choice, what=what, chosen=chosen, refused=refused)


def _turned(words: str) -> str:
    return words.replace(QUERIES, "\0").replace(KEYS, QUERIES).replace("\0", KEYS)
