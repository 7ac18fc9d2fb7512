"""How the entry functions of a plan's text are called."""

from __future__ import annotations

from flurka_numba.targets.cpu.plan import CpuPlan
from splat_numba.gen.language.cpu_entry import CpuEntry, Parameter, arrays, numbers


def entry_of(plan: CpuPlan, name: str) -> CpuEntry:
    """One entry function. The caller's arrays are at any strides; ours are contiguous, partial sums with five axes."""
    parameters = {
        "fold": _fold, "compress": _compress, "largest_key": _largest_key, "absorb": _absorb, "attend": _attend,
        "query_gradient": _query_gradient, "key_gradient": _key_gradient, "expand": _expand,
        "project_gradient": _project_gradient,
    }  # fmt: skip
    return CpuEntry(name, tuple(parameters[name](plan)))


Parameters = tuple[Parameter, ...]
LENGTHS = arrays("int64", 1, "lengths", contiguous=True)
KEPT = numbers("int64", "kept")


def _ours(plan: CpuPlan, axes: int, *names: str, written: bool = False) -> Parameters:
    return arrays(plan.compute_dtype, axes, *names, contiguous=True, written=written)


def _fold(plan: CpuPlan) -> Parameters:
    return *_ours(plan, 5, "partial"), *_ours(plan, 4, "total", written=True)


def _compress(plan: CpuPlan) -> Parameters:
    tokens = (*arrays(plan.dtype, 4, "source"), *arrays(plan.dtype, 3, "proj"))
    return *tokens, *LENGTHS, *_ours(plan, 5, "partial", written=True), *numbers("int64", "group")


def _largest_key(plan: CpuPlan) -> Parameters:
    keys = (*arrays(plan.key_dtype, 4, "k"), *_ours(plan, 4, "w"))
    return *keys, *LENGTHS, *KEPT, *_ours(plan, 3, "largest", written=True)


def _absorb(plan: CpuPlan) -> Parameters:
    rows = (*arrays(plan.key_dtype, 4, "k", "v"), *_ours(plan, 4, "w"), *_ours(plan, 2, "stabs"))
    return *rows, *LENGTHS, *KEPT, *_ours(plan, 5, "state", "sums", written=True)


def _attend(plan: CpuPlan) -> Parameters:
    state = (*_ours(plan, 4, "w"), *KEPT, *_ours(plan, 4, "state", "sums"), *_ours(plan, 2, "scales"))
    return *arrays(plan.dtype, 4, "q"), *state, *arrays(plan.dtype, 4, "out", written=True)


def _query_gradient(plan: CpuPlan) -> Parameters:
    state = (*_ours(plan, 4, "w", "w_t"), *KEPT, *_ours(plan, 4, "state_t", "sums"), *_ours(plan, 2, "scales"))
    written = arrays(plan.compute_dtype, 4, "dq", written=True)
    return (
        *arrays(plan.dtype, 4, "q", "dout"), *state, *written,
        *_ours(plan, 5, "dstate", "dsums", "dw_t", written=True),
    )  # fmt: skip


def _key_gradient(plan: CpuPlan) -> Parameters:
    rows = (*arrays(plan.key_dtype, 4, "k", "v"), *_ours(plan, 4, "w", "w_t"), *_ours(plan, 2, "stabs"))
    state = (*LENGTHS, *KEPT, *_ours(plan, 4, "dstate", "dstate_t", "dsums"))
    return *rows, *state, *arrays(plan.compute_dtype, 4, "dk", "dv", written=True)


def _expand(plan: CpuPlan) -> Parameters:
    slots = (*arrays(plan.dtype, 3, "proj"), *_ours(plan, 4, "dslots"))
    return *slots, *LENGTHS, *arrays(plan.compute_dtype, 4, "dsource", written=True)


def _project_gradient(plan: CpuPlan) -> Parameters:
    slots = (*arrays(plan.dtype, 4, "source"), *_ours(plan, 4, "dslots_t"))
    return *slots, *LENGTHS, *_ours(plan, 3, "dproj", written=True)
