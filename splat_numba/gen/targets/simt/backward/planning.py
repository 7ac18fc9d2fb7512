"""Plans of gradients: a search on the mask for dq, one on the transposed mask for dk and dv."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from splat_numba.formats.geometry import Geometry
from splat_numba.gen.backward import BackwardPlan
from splat_numba.gen.box_cost import Work, count_box_pass
from splat_numba.gen.box_passes import BoxCandidate, search
from splat_numba.gen.boxes import BoxPass, Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Choice
from splat_numba.gen.problem import Conditions, Problem
from splat_numba.gen.targets.simt.backward.tile_shapes import candidates
from splat_numba.gen.targets.simt.backward.traits import KEYS, QUERIES
from splat_numba.gen.targets.simt.cost import predict_work
from splat_numba.plain import memory_size


@dataclass(frozen=True, slots=True)
class GradientTiles:
    """The tiles for the gradients of queries or keys. Raises PlanError for dims that no tile fits."""

    problem: Problem
    gpu: Gpu
    of: str

    @property
    def shapes(self) -> tuple[Traits, ...]:
        """Those that a multiprocessor can hold."""
        return candidates(self.problem, self.of, self.gpu)[0]

    def seconds(self, work: Work, traits: Traits) -> float:
        """Predicted, for all heads and batch entries."""
        key, value = traits.head_dim, traits.value_dim
        dims = 2 * key + value if self.of == QUERIES else 2 * key + 2 * value
        return predict_work(work, traits, self.problem, self.gpu, dims)


def plan_backward(target: str, geometry: Geometry, problem: Problem, gpu: Gpu, conditions: Conditions) -> BackwardPlan:
    """The plan of the least predicted time. Raises PlanError where no tile shape fits the head dimensions."""
    queries, why_queries = _best(geometry, problem, gpu, QUERIES, conditions)
    # A key's queries may come in any order: lengths are of keys.
    keys, why_keys = _best(geometry.transposed(), problem.transposed(), gpu, KEYS, replace(conditions, ragged=False))
    passes = keys.passes()
    return BackwardPlan(
        problem, target, gpu, queries.passes(), passes, (_design(passes, problem), *why_queries, *why_keys), conditions,
        bool((np.diff(geometry.runs.row_ptr) == 0).any()), queries.seconds + keys.seconds,
    )  # fmt: skip


def _design(passes: Sequence[BoxPass], problem: Problem) -> Choice:
    pairs = sum(count_box_pass(one).area for one in passes) * problem.batch * problem.heads_q
    kept = memory_size(problem.itemsize * pairs)
    return Choice(
        "gradients", "two kernels that both make the weights again",
        "seven products a tile, nothing of the mask's size stored, each gradient with one owner, so that bits repeat",
        (("one that keeps dS for the other", f"five products a tile, but {kept} of memory a call"),),
    )  # fmt: skip


def _best(
    geometry: Geometry, problem: Problem, gpu: Gpu, of: str, conditions: Conditions
) -> tuple[BoxCandidate, tuple[Choice, ...]]:
    tiles = GradientTiles(problem, gpu, of)
    found = search(geometry.table, problem, tiles, ragged=conditions.ragged, negate=conditions.negate)
    (best,) = found.best(1)
    return best, tuple(_named(one, of) for one in found.reasons(best))


def _named(choice: Choice, of: str) -> Choice:
    """A choice of the search, which calls rows queries whatever they are, as one for gradients of ``of``."""
    what, chosen, refused = f"{choice.what}, gradients of {of}", choice.chosen, choice.refused
    if of == KEYS:
        chosen, refused = _turned(chosen), tuple((_turned(name), why) for name, why in refused)
    return replace(choice, what=what, chosen=chosen, refused=refused)


def _turned(words: str) -> str:
    return words.replace(QUERIES, "\0").replace(KEYS, QUERIES).replace("\0", KEYS)
