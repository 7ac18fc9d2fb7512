"""Our kernel in the comparison: compiled for a case, and with traits forced for a sweep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from gpu_cases import Case
from gpu_peers import Contender
from gpu_timing import seconds
from gpu_workload import Shape, Workload

import splat_numba as splat
from splat_numba.executors.gpu import executor as gpu_kernel
from splat_numba.executors.gpu import parts as gpu_parts
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.targets.sm90.tile_shapes import STAGES, feasible

OURS = "splat"
TARGET = "sm_90a"


def compiled(mask: splat.Pattern, shape: Shape) -> Any:
    """The kernel for one mask and shape."""
    return splat.compile(
        mask,
        seq_q=shape.seq,
        seq_kv=shape.seq,
        head_dim=shape.dim,
        heads_q=shape.heads,
        batch=shape.batch,
        dtype="bfloat16",
        backend="cuda",
        target=TARGET,
    )


def prepare(case: Case, workload: Workload) -> Contender:
    """Compiled and called once. facts: the build's and the first call's seconds, table bytes, resources, the plan."""
    kernel, build_s = seconds(lambda: compiled(case.pattern, workload.shape))
    return bind(kernel, workload, {"build_s": build_s, **describe_kernel(kernel)})


def bind(kernel: Callable[..., Any], workload: Workload, facts: dict[str, Any]) -> Contender:
    """A contender that writes into results of its own, one for each set, which start as NaN."""
    outs = [torch.full_like(q, torch.nan) for q, _, _ in workload.sets]

    def call(index: int) -> torch.Tensor:
        q, k, v = workload.sets[index]
        kernel(q, k, v, out=outs[index])
        return outs[index]

    _, first_s = seconds(lambda: call(0))
    outs[0].fill_(torch.nan)  # so that the checked call must write everything itself
    return Contender(call, facts={**facts, "first_call_s": first_s})


def describe_kernel(kernel: Any) -> dict[str, Any]:
    """Bytes of the plan's tables, the passes, and what the compiler said, as far as the kernel tells."""
    passes = getattr(kernel.plan, "passes", ())
    resources = kernel.resources
    return {
        "table_bytes": sum(getattr(getattr(one, "table", None), "nbytes", 0) for one in passes),
        "passes": [str(getattr(one, "traits", type(one).__name__)) for one in passes],
        "resources": {name: resources[name] for name in ("registers", "spill_bytes", "shared_bytes")
                      if name in resources},
    }  # fmt: skip


def read_configs(text: str) -> list[dict[str, int]]:
    """'groups=2,tile_kv=128;groups=3' -> [{'groups': 2, 'tile_kv': 128}, {'groups': 3}]. ValueError if it is not so."""
    return [
        {name.strip(): int(value) for name, value in (item.split("=") for item in one.split(","))}
        for one in text.split(";")
        if one.strip()
    ]


def forced_kernel(case: Case, shape: Shape, config: dict[str, int]) -> Any:
    """The kernel whose passes all have tiles of this shape. ValueError for one that no multiprocessor holds."""
    traits = forced_traits(shape, config)
    _forget_plans()
    try:
        with patch.object(box_search, "candidates", lambda *_: [traits]):
            return compiled(case.pattern, shape)
    finally:
        _forget_plans()


def forced_traits(shape: Shape, config: dict[str, int]) -> Traits:
    """Traits with what config names; as many resident blocks as fit, unless it says. ValueError as forced_kernel()."""
    resident = [config["blocks_per_multiprocessor"]] if "blocks_per_multiprocessor" in config else [3, 2, 1]
    for blocks in resident:
        one = Traits(shape.dim, shape.dim, "bfloat16", 2, 128, STAGES, 1)
        one = replace(one, **{**config, "blocks_per_multiprocessor": blocks})
        if feasible(one, Gpu()):
            return one
    raise ValueError(f"config wanted traits that fit {Gpu().name} at head_dim {shape.dim}, got {config}.")


def _forget_plans() -> None:
    """Plans are remembered by mask and problem."""
    gpu_parts.plan_for.cache_clear()
    gpu_kernel._planned.cache_clear()  # noqa: SLF001 - no public way, and none needed elsewhere
