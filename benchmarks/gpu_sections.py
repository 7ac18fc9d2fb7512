"""What gpu_attention.py can measure: each section yields rows, so that what is done stays when something breaks."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gpu_ours
import gpu_peers
import torch
from gpu_cases import (
    Case,
    bigbird_case,
    blocked_case,
    documents_case,
    kept_pairs,
    main_cases,
    splat_cases,
    strided_case,
    uneven_documents,
    window_case,
)
from gpu_ours import OURS
from gpu_peers import DENSE, FLEX, Contender, Prepare
from gpu_report import compare
from gpu_timing import Budget, Call, describe, host_us, measure_all, seconds
from gpu_workload import Shape, Workload, check

import splat_numba as splat

SEQ, BATCH, HEADS = 8192, 2, 16
SMALL_SEQS, SMALL_HEADS = (512, 1024, 2048), (8, 64)
LONG_SEQ, LONG_WIDTH, LONG_HEADS = 131_072, 1024, 8
SPLAT_SEQS, SPLAT_HEADS, SPLAT_DIM, SPLAT_TOKENS = (1024, 2048, 4096, 8192), 12, 64, 16_384

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Setting:
    """What the command line chose, and what was found out before the first section."""

    cases: list[str] | None
    dims: tuple[int, ...]
    peers: dict[str, Prepare] = field(repr=False)
    budget: Budget
    checks: bool
    ceilings: dict[str, float]
    baseline: dict[str, dict[str, dict[str, float]]] = field(repr=False)
    configs: list[dict[str, int]]

    def chosen(self, cases: dict[str, Case]) -> list[Case]:
        """Those named on the command line, or all."""
        return [case for name, case in cases.items() if self.cases is None or name in self.cases]


def main(setting: Setting) -> Iterator[Row]:
    """The 14 masks at 8192 tokens, beside every peer and the floor."""
    for dim in setting.dims:
        for case in setting.chosen(main_cases(SEQ)):
            row = contest(case, Shape(BATCH, HEADS, SEQ, dim), setting, setting.peers)
            yield {**row, **compare(row, case.target, setting.baseline.get(str(dim), {}).get(case.name))}


def configs(setting: Setting) -> Iterator[Row]:
    """Our kernel with forced traits."""
    for dim in setting.dims:
        shape = Shape(BATCH, HEADS, SEQ, dim)
        for case in setting.chosen(main_cases(SEQ)):
            for config in setting.configs:

                def prepare(
                    case: Case, workload: Workload, shape: Shape = shape, config: dict[str, int] = config
                ) -> Contender:
                    return gpu_ours.bind(gpu_ours.forced_kernel(case, shape, config), workload, {})

                row = contest(case, shape, setting, {}, prepare)
                yield {**row, "config": ",".join(f"{name}={value}" for name, value in config.items())}


def splat_range(setting: Setting) -> Iterator[Row]:
    """SPLAT's own masks, beside every peer that takes masks, and dense attention."""
    for seq in SPLAT_SEQS:
        shape = Shape(max(1, SPLAT_TOKENS // seq), SPLAT_HEADS, seq, SPLAT_DIM)
        for case in setting.chosen(splat_cases(seq)):
            yield beside_dense(case, shape, setting)


def beside_dense(case: Case, shape: Shape, setting: Setting, hosts: bool = False) -> Row:
    """A row with the peers and dense SDPA, which knows nothing of the mask and so is no peer, and the ratios."""
    row = contest(case, shape, setting, {**setting.peers, DENSE: gpu_peers.prepare_dense}, hosts=hosts)
    times = row["times"]
    row |= compare({**row, "times": {name: one for name, one in times.items() if name != DENSE}}, None, None)
    if "ms" in times.get(OURS, {}) and "ms" in times.get(DENSE, {}):
        row["dense_ratio"] = times[DENSE]["ms"] / times[OURS]["ms"]
    return row


def small(setting: Setting) -> Iterator[Row]:
    """Shapes whose host time matters."""
    for seq in SMALL_SEQS:
        for heads in SMALL_HEADS:
            for case in setting.chosen(
                {"window64": window_case("window64", 64), "strided16": strided_case("strided16", 16)}
            ):
                yield beside_dense(case, Shape(1, heads, seq, setting.dims[0]), setting, hosts=True)


def long(setting: Setting) -> Iterator[Row]:
    """131,072 tokens: the time, and what a mask costs to make and to hold."""
    case = window_case(f"window{LONG_WIDTH}", LONG_WIDTH)
    shape = Shape(1, LONG_HEADS, LONG_SEQ, 128)
    row = contest(case, shape, setting, _flex(setting))
    ratios = compare(row, None, None)
    row |= {name: ratios[name] for name in ("flex_ratio", "floor_ratio") if name in ratios}
    try:  # a mask that shares the kernel's text: what a new mask costs once the process is warm
        _, again = seconds(lambda: gpu_ours.compiled(splat.window(LONG_WIDTH - 1), shape))
        row["facts"].setdefault(OURS, {})["build_again_s"] = again
    except Exception as error:  # noqa: BLE001 - the row keeps what it has
        row["errors"]["build again"] = describe(error)
    yield row


def host(setting: Setting) -> Iterator[Row]:
    """Microseconds of one call when the GPU has next to nothing to do, beside FlexAttention."""
    seq = 512
    shape = Shape(1, 4, seq, setting.dims[0])
    cases = (window_case("window64", 64), blocked_case("blocked64", 64), bigbird_case(seq),
             documents_case(uneven_documents(seq)))  # fmt: skip
    for case in setting.chosen({case.name: case for case in cases}):
        workload = Workload(shape, Workload.draw(shape, seed=1).sets[:1])
        for name, make in HOST_CALLS.items():
            row: Row = {"case": case.name, "shape": str(shape), "call": name}
            try:
                row |= host_us(make(case, workload))
            except Exception as error:  # noqa: BLE001 - the row says so, the others follow
                row["error"] = describe(error)
            yield row


def _operator_call(case: Case, workload: Workload) -> Call:
    q, k, v = workload.sets[0]
    return lambda _: splat.attention(q, k, v, case.pattern, backend="cuda", target=gpu_ours.TARGET)


def _kernel_call(case: Case, workload: Workload) -> Call:
    kernel = gpu_ours.compiled(case.pattern, workload.shape)
    return lambda index: kernel(*workload.sets[index])


HOST_CALLS: dict[str, Callable[[Case, Workload], Call]] = {
    "attention()": _operator_call,
    "kernel()": _kernel_call,
    "kernel(out=)": lambda case, workload: gpu_ours.prepare(case, workload).call,
    FLEX: lambda case, workload: gpu_peers.prepare_flex(case, workload).call,
}


def _flex(setting: Setting) -> dict[str, Prepare]:
    return {FLEX: setting.peers[FLEX]} if FLEX in setting.peers else {}


def contest(
    case: Case,
    shape: Shape,
    setting: Setting,
    peers: dict[str, Prepare],
    ours: Prepare = gpu_ours.prepare,
    hosts: bool = False,
) -> Row:
    """One case: everybody prepared, checked if asked for, timed in turns. What goes wrong becomes part of the row."""
    kept = kept_pairs(case, shape.seq)
    row: Row = {"case": case.name, "dim": shape.dim, "shape": str(shape), "kept": kept,
                "density": kept / shape.seq**2, "times": {}, "facts": {}, "check": {}, "errors": {}}  # fmt: skip
    if setting.ceilings:
        row["floor_ms"] = shape.floor_ms(kept, setting.ceilings)
    try:
        workload = Workload.draw(shape, seed=kept % 2**31)
        row["input_sets"] = len(workload.sets)
        contenders = _prepare_all(row, case, workload, {OURS: ours, **peers}, setting.checks)
        calls = {name: contender.call for name, contender in contenders.items()}
        row["times"] = measure_all(calls, len(workload.sets), setting.budget)
        if hosts:
            working = {name: call for name, call in calls.items() if "ms" in row["times"][name]}
            row["host"] = {name: host_us(call, len(workload.sets)) for name, call in working.items()}
    except Exception as error:  # noqa: BLE001 - one case must not cost the others
        row["error"] = describe(error)
    workload = contenders = calls = None  # the next case needs the memory
    gc.collect()
    return row


def _prepare_all(
    row: Row, case: Case, workload: Workload, prepares: dict[str, Prepare], checks: bool
) -> dict[str, Contender]:
    """Those that run and, where checked, are right; a wrong result is not timed."""
    ready: dict[str, Contender] = {}
    for name, prepare in prepares.items():
        try:
            with torch.no_grad():
                contender = prepare(case, workload)
            if contender is None:
                continue
            row["facts"][name] = contender.facts
            if checks and name != DENSE:
                row["check"][name] = found = check(case, workload, contender.result())
                if not found["correct"]:
                    row["errors"][name] = (
                        f"wrong result: error {found['error']:.2e}, worst row {found['worst_row']:.2e}"
                    )
                    continue
            torch.cuda.synchronize()
            ready[name] = contender
        except Exception as error:  # noqa: BLE001 - as above
            row["errors"][name] = describe(error)
    return ready


SECTIONS: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "main": main,
    "splat": splat_range,
    "long": long,
    "small": small,
    "host": host,
    "configs": configs,
}
