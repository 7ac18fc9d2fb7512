"""Our kernels for a list of problems, compiled by several processes beforehand: the benchmark finds them on disk."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterable

from flurka_gpu_workload import Size

import splat_numba
from flurka_numba.feature_maps import RANDOM_MAPS, resolve
from flurka_numba.gpu.gradient_plan import gradient_plan, has_token_stage, over_slots, projection_stage, token_stage
from flurka_numba.gpu.plan import forward_plan, taking_input
from flurka_numba.gpu.stages import Stage
from flurka_numba.problem import Problem
from splat_numba.executors.gpu.parts import texts_of
from splat_numba.gen.language.entry import Entry
from splat_numba.runtime.cuda.build import build
from splat_numba.runtime.cuda.code import source_of
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import current

METHODS = ("flurka", "kernel", "low_rank")
Job = tuple[str, str, Entry]  # name and text of a kernel, and how it is called


def compile_all(sizes: Iterable[Size], multiprocessors: int, processes: int) -> str:
    """Compile what is not on disk yet; says how much, and how long that took."""
    begin = time.perf_counter()
    jobs = {job[1]: job for size in sizes for job in _jobs(size, multiprocessors)}
    with multiprocessing.get_context("spawn").Pool(min(processes, len(jobs) or 1)) as pool:
        cached = pool.map(compile_one, jobs.values(), chunksize=1)
    seconds = time.perf_counter() - begin
    return f"{len(jobs)} kernels, {sum(cached)} found on disk, ready in {seconds:.1f} s by {processes} processes."


def _jobs(size: Size, multiprocessors: int) -> list[Job]:
    plans = [forward_plan(problem_of(size, method), multiprocessors) for method in METHODS]
    stages = [stage for plan in plans for stage in plan.stages]
    if not size.features:
        stages += _of_layer(size, multiprocessors) + _gradients(size, multiprocessors)
    jobs = [(stage.text.name, stage.text.render(), stage.text.entry) for stage in stages]
    dense = splat_numba.plan(
        splat_numba.full(), seq_q=size.seq, seq_kv=size.rank, head_dim=size.dim, heads_q=size.heads, batch=size.batch,
        dtype="bfloat16", backend="cuda",
    )  # fmt: skip
    sources = [(source_of(one), one.entry) for one in texts_of(dense)]
    return jobs + [(source.name, source.text, entry) for source, entry in sources]


def _of_layer(size: Size, multiprocessors: int) -> list[Stage]:
    """In order (b): kernel attention of the slots, with queries that are made on the way."""
    slots = taking_input(problem_of(size, "kernel", size.rank), size.width)
    return list(forward_plan(slots, multiprocessors).stages)


def _gradients(size: Size, multiprocessors: int) -> list[Stage]:
    flurka = problem_of(size, "flurka")
    gradients = gradient_plan(over_slots(flurka), multiprocessors, spread=has_token_stage(flurka)).stages
    planned = [stage(flurka, frozenset("kv"), multiprocessors) for stage in (projection_stage, token_stage)]
    return [*gradients, *(found[0] for found in planned if found is not None)]


def problem_of(size: Size, method: str, seq_kv: int | None = None) -> Problem:
    """The problem as flurka_numba sees it."""
    feature_map, eps = (None, 0.0) if method == "low_rank" else resolve(size.feature_map, None)
    return Problem(
        method=method,
        batch=size.batch,
        heads=size.heads,
        seq_q=size.seq,
        seq_kv=seq_kv or size.seq,
        rank=0 if method == "kernel" else size.rank,
        head_dim=size.dim,
        value_dim=size.dim,
        features=0 if method == "low_rank" else _features(size),
        dtype="bfloat16",
        feature_map=feature_map,
        eps=eps,
        per_head_proj=False,
        shared_proj=False,
        ragged=False,
        scale=size.dim**-0.5 if method == "low_rank" else 1.0,
    )


def _features(size: Size) -> int:
    """Of a token."""
    return size.features * RANDOM_MAPS[size.feature_map].per_row if size.features else size.dim


def compile_one(job: Job) -> bool:
    """Whether the machine code was on disk."""
    name, text, entry = job
    return build(KernelSource.of(name, text), entry, current()).cached
