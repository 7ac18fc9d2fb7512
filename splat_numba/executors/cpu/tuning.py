"""autotune=True on a CPU: the best candidates of the planner timed, once; the fastest is the plan from then on.

Forward passes and gradients have a choice each, gradients one for every set of inputs that are not frozen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import lru_cache, partial

from splat_numba.arguments.masks import Stored, fingerprint
from splat_numba.executors.cpu.backward import compile_gradients
from splat_numba.executors.cpu.executor import Timer, compile_plan, host_plan_for
from splat_numba.executors.cpu.trial import forward_operands, gradient_operands
from splat_numba.executors.measured import known_or_measured, reason
from splat_numba.formats.geometry import geometry
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.plan import Choice, Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.rows.passes import CpuCandidate
from splat_numba.gen.targets.registry import cpu_target
from splat_numba.runtime.device import cores, machine, name
from splat_numba.runtime.recent import REMEMBERED
from splat_numba.settings import Settings
from splat_numba.version import __version__

MOST = 4  # candidates timed: compiling each takes 2 to 4 s
ROUNDS = 5
ENOUGH_SECONDS = 2e-3  # of work between two looks at the clock

Call = Callable[[], object]


def least_seconds(calls: Sequence[Call]) -> list[float]:
    """Seconds of each call: all take turns, in several rounds, and the least counts, since what else runs on a machine
    only adds.
    """
    counts = []
    for call in calls:
        call()  # tables loaded, threads there
        counts.append(max(1, int(ENOUGH_SECONDS / max(_seconds(call, 1), 1e-9))))
    rounds = [[_seconds(call, count) for call, count in zip(calls, counts, strict=True)] for _ in range(ROUNDS)]
    return [min(times) for times in zip(*rounds, strict=True)]


def _seconds(call: Call, count: int) -> float:
    begin = time.perf_counter()
    for _ in range(count):
        call()
    return (time.perf_counter() - begin) / count


@lru_cache(maxsize=REMEMBERED)
def tuned_plan(
    mask: Stored, heads: tuple[int, ...] | None, problem: Problem, settings: Settings, timer: Timer,
    wanted: Wanted | None, request: str | None,
) -> Plan:  # fmt: skip
    """The plan of the candidate that is fastest here, remembered here and on disk. wanted: of gradients, else None."""
    predicted, host = host_plan_for(mask, problem, settings.threads, request), machine(settings.threads)
    if not problem.batch * problem.heads_q * problem.seq_q * problem.seq_kv:
        return predicted
    found, target = geometry(mask, problem.seq_q, problem.seq_kv), cpu_target(predicted.target)
    candidates = target.candidates(found, problem, host, MOST)
    if len(candidates) < 2:
        return predicted

    def planned(candidate: CpuCandidate, *reasons: Choice) -> Plan:
        return target.plan_of(candidate, predicted, reasons)

    def measure() -> list[float]:
        return timer(_trials([planned(one) for one in candidates], heads, problem, settings, wanted))

    facts = {
        "mask": fingerprint(mask), "heads": heads and len(heads), "problem": asdict(problem), "target": target.name,
        "gradients": wanted and wanted.names, "cpu": name(), "machine": asdict(host), "version": __version__,
    }  # fmt: skip
    seconds = known_or_measured(facts, tuple(one.name for one in candidates), measure, settings)
    best = min(candidates, key=lambda one: seconds[one.name])
    words = "predicted" if wanted is None else "forward predicted"
    return planned(best, reason(best, candidates, seconds, f"this CPU ({name()}, {host.describe()})", words))


def _trials(
    plans: Sequence[Plan], heads: tuple[int, ...] | None, problem: Problem, settings: Settings, wanted: Wanted | None
) -> list[Call]:
    """A call of each plan, all on the same operands."""
    threads, scale = settings.threads or cores(), problem.head_dim**-0.5
    if wanted is None:
        arrays = forward_operands(problem)
        forward = [compile_plan(plan, settings).schedule_for(problem, heads, scale) for plan in plans]
        return [partial(one.run, arrays, threads) for one in forward]
    arrays, shares = gradient_operands(plans[0].target, problem, wanted)
    back = [compile_gradients(plan, wanted, settings).schedule_for(problem, heads, scale, shares) for plan in plans]
    return [partial(one.run, arrays, threads) for one in back]
