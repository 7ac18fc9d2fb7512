"""A mask of two passes, of which the later one resumes, however slow a planner predicts them to be."""

import splat_numba as splat
from splat_numba.executors.emulated import executor as emulated_kernel
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.targets.registry import gpu_target

STRIPES = splat.window(3) | splat.strided(16)


def take_two_passes(monkeypatch, target):
    """Have the emulated calls of a target take the window first and resume for the stripes."""

    def in_two_passes(mask, problem, gpu, _request, conditions):
        found, of = splat.geometry(mask, problem.seq_q, problem.seq_kv), gpu_target(target)
        way = next(one for one in of.candidates(found, problem, gpu, conditions, 100) if len(one.trials) > 1)
        return of.plan_of(way, found, problem, gpu, repr(mask), conditions, ())

    monkeypatch.setattr(box_search, "WORTH_TRYING", 1e9)
    monkeypatch.setattr(emulated_kernel, "plan_for", in_two_passes)
