"""autotune=True: the best candidates of the planner timed on the GPU, once; the fastest is the plan from then on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any

from splat_numba.arguments.masks import Stored, fingerprint, planned_mask
from splat_numba.errors import BackendError
from splat_numba.executors.executor import Executor, HeadsMask, Part, Recipe
from splat_numba.executors.gpu.executor import CudaExecutor, compiled_for
from splat_numba.executors.gpu.trial import trial_calls
from splat_numba.executors.measured import known_or_measured, reason
from splat_numba.executors.plans import plan_for
from splat_numba.formats.geometry import geometry
from splat_numba.gen.plans.plan import Choice, Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.registry import choose_target
from splat_numba.gen.targets.target import Candidate
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import framework_of
from splat_numba.runtime.cuda.launch import is_capturing
from splat_numba.runtime.cuda.timing import Call, median_seconds
from splat_numba.runtime.recent import REMEMBERED
from splat_numba.settings import Settings
from splat_numba.version import __version__

MOST = 6  # candidates timed: compiling each takes about 5 s
Timer = Callable[[Sequence[Call], Device], list[float]]


@dataclass(frozen=True, slots=True)
class Uncaptured:
    """A recipe whose parts are not made while a graph is being captured: they may have to be timed."""

    recipe: Recipe
    arrays: tuple[Any, ...]

    @property
    def layout(self) -> str:
        """The recipe's."""
        return self.recipe.layout

    @property
    def scale(self) -> float | None:
        """The recipe's."""
        return self.recipe.scale

    @property
    def fused(self) -> bool | None:
        """The recipe's."""
        return self.recipe.fused

    @property
    def executor(self) -> Executor:
        """The recipe's."""
        return self.recipe.executor

    def masks_for(self, problem: Problem) -> tuple[HeadsMask, ...]:
        """The recipe's."""
        return self.recipe.masks_for(problem)

    @property
    def identity(self) -> tuple[object, ...] | None:
        """The recipe's."""
        return self.recipe.identity

    def parts_for(self, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> tuple[Part, ...]:
        """The recipe's. Raises BackendError during a capture."""
        framework = framework_of(self.arrays[0])
        if framework is not None:
            ordinal = framework.describe("q", self.arrays[0]).device
            if is_capturing(framework.stream(self.arrays, ordinal)):
                raise BackendError(
                    "autotune wanted outside of a graph's capture, since kernels may be compiled and timed, got a "
                    "stream that is being captured. Make one such call before the capture."
                )
        return self.recipe.parts_for(problem, scale, settings, ragged=ragged)


@dataclass(frozen=True, slots=True)
class TunedExecutor(CudaExecutor):
    """As on a GPU, but that plans are those measured fastest. timer: seconds of each call."""

    timer: Timer = median_seconds

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and machine code for one mask, timed where that is not known yet."""
        plan = self._plan_for(mask, heads, problem, settings, Conditions(ragged, scale < 0))
        return Part(mask, heads, plan, compiled_for(plan, settings))

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """As on a GPU. Raises BackendError for a first call during the capture of a graph."""
        return CudaExecutor.attend(self, Uncaptured(recipe, (q, k, v)), q, k, v, kv_lengths, out, return_lse)

    def _plan_for(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, settings: Settings, conditions: Conditions
    ) -> Plan:
        return tuned_plan(mask, heads, self.precise(problem), settings, self.timer, self.target, conditions)


@lru_cache(maxsize=REMEMBERED)
def tuned_plan(
    mask: Stored, heads: tuple[int, ...] | None, problem: Problem, settings: Settings, timer: Timer,
    request: str | None, conditions: Conditions,
) -> Plan:  # fmt: skip
    """The plan of the candidate that is fastest on the first GPU, remembered here and on disk.

    Raises BackendError without a GPU, or without memory for two copies of the operands.
    """
    device = _first_gpu()
    gpu = device.as_planned
    target, why = choose_target(request, problem, gpu)
    found = geometry(mask, problem.seq_q, problem.seq_kv)
    candidates = target.candidates(found, problem, gpu, conditions, MOST)
    if len(candidates) < 2 or not problem.batch * problem.heads_q * problem.seq_q * problem.seq_kv:
        return plan_for(mask, problem, gpu, request, conditions)

    def planned(candidate: Candidate, *reasons: Choice) -> Plan:
        return target.plan_of(candidate, found, problem, gpu, planned_mask(mask), conditions, (why, *reasons))

    def measure() -> list[float]:
        parts = [Part(mask, heads, plan, compiled_for(plan, settings)) for plan in map(planned, candidates)]
        return timer(trial_calls(parts, problem, device, ragged=conditions.ragged), device)

    facts = {
        "mask": fingerprint(mask), "heads": heads and len(heads), "problem": asdict(problem),
        "conditions": asdict(conditions), "target": target.name, "gpu": device.name,
        "multiprocessors": device.multiprocessors, "version": __version__,
    }  # fmt: skip
    seconds = known_or_measured(facts, tuple(one.name for one in candidates), measure, settings)
    best = min(candidates, key=lambda one: seconds[one.name])
    return planned(best, reason(best, candidates, seconds, device.name))


def _first_gpu() -> Device:
    try:
        return device(0)
    except BackendError as error:
        raise BackendError(f"autotune wanted a GPU to time kernels on: {error} Or leave autotune out.") from error
