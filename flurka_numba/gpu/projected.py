"""Kernel attention of a layer's queries, q = x w_q, which never reach memory: stages and their order on a GPU.

The state over keys and values is made as for every kernel attention; the stage that applies it makes the queries, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

from flurka_numba.gpu.composed.plan import composes_forward
from flurka_numba.gpu.gradients import Runner
from flurka_numba.gpu.stages import (
    Stage,
    accumulate_stage,
    apply_traits,
    images_stage,
    shares_of_sequence,
    stage_name,
)
from flurka_numba.problem import Problem
from flurka_numba.targets.sm90.accumulate import SHARE_NUMBERS, AccumulateTraits
from flurka_numba.targets.sm90.images import turned_bytes
from flurka_numba.targets.sm90.project_apply import (
    TOKENS,
    ProjectTraits,
    project_entry,
    render_project_apply,
)
from flurka_numba.targets.sm90.shape import STEP


@dataclass(frozen=True, slots=True)
class ProjectedPlan:
    """The stages in their order, and bytes of what they leave to each other."""

    keys: Stage
    images: Stage
    apply: Stage
    shares: int
    states: int
    turned: int

    @property
    def stages(self) -> tuple[Stage, ...]:
        """In their order."""
        return self.keys, self.images, self.apply


def takes_inputs(problem: Problem, model_dim: int) -> bool:
    """Whether there is a text that makes these queries: 16-bit arrays, elementwise maps, heads that fill its tiles."""
    if problem.method != "kernel" or composes_forward(problem) or not problem.batch * problem.seq_q:
        return False
    traits = ProjectTraits(apply_traits(problem))
    return traits.fits and problem.heads % traits.heads == 0 and model_dim % 8 == 0 and model_dim > 0


@lru_cache(maxsize=256)
def projected_plan(problem: Problem, model_dim: int, multiprocessors: int) -> ProjectedPlan:
    """problem: of method "kernel", for which takes_inputs() is true; its q stands for x w_q."""
    traits = ProjectTraits(apply_traits(problem))
    phi, dims = problem.feature_map, (problem.head_dim, problem.value_dim, problem.dtype)
    keys = AccumulateTraits("keys", *dims, phi, ragged=problem.ragged)  # type: ignore[arg-type] # takes_inputs() saw it
    states = problem.batch * problem.heads * keys.blocks[0] * keys.blocks[1]
    shares = shares_of_sequence(states, problem.seq_kv, multiprocessors)
    row_tiles, column_tiles = -(-problem.seq_q // TOKENS), problem.heads // traits.heads
    tiles = problem.batch * row_tiles * column_tiles
    numbers = {
        "heads": problem.heads, "seq_q": problem.seq_q, "steps": -(-model_dim // STEP), "tiles": tiles,
        "column_tiles": column_tiles, "row_tiles": row_tiles,
    }  # fmt: skip
    render = partial(render_project_apply, traits)
    name, grid = stage_name("project_apply", problem), min(tiles, multiprocessors)
    return ProjectedPlan(
        accumulate_stage(problem, keys, problem.seq_kv, shares),
        images_stage(problem, states, shares, natural_features=True),
        Stage(name, project_entry(traits), render, grid, numbers),
        shares=4 * SHARE_NUMBERS * states * shares,
        states=problem.batch * problem.heads * traits.apply.state_bytes,
        turned=problem.batch * problem.heads * turned_bytes(problem.head_dim, problem.value_dim),
    )


def attend_projected(problem: Problem, arrays: Mapping[str, Any], lengths: Any, runner: Runner) -> Any:
    """out, (batch, heads, seq, dim). arrays, with four axes: x (batch, 1, seq, model_dim), w_q (1, 1, model_dim, heads
    * dim), k and v (batch, heads, rows, dim).
    """
    x, w_q, k, v = (runner.readable(arrays[name]) for name in ("x", "w_q", "k", "v"))
    plan = projected_plan(problem, arrays["x"].shape[-1], runner.multiprocessors)
    shares, states, turned = runner.areas(plan.shares, plan.states, plan.turned)
    runner.launch(plan.keys, {"k": k, "v": v, "kv_lengths": lengths, "shares": shares})
    runner.launch(plan.images, {"shares": shares, "states": states, "turned": turned})
    out = runner.side_by_side((problem.batch, problem.heads, problem.seq_q, problem.value_dim))
    runner.launch(plan.apply, {"x": x, "w_q": w_q, "states": states, "out": out}, {"x": TOKENS, "w_q": STEP})
    return out
