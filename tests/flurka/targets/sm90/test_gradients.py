"""Gradients by the texts of a GPU, on the emulator, against the oracle; and that the texts compile without a GPU."""

import numpy as np
import pytest
from hypothesis import example, given, settings

from flurka_numba.gpu.gradient_plan import gradient_plan, over_slots, projection_stage, token_stage
from flurka_numba.targets.sm90.token_shape import GROUPS, REGISTERS
from splat_numba.errors import ArgumentError
from splat_numba.gen.plans.machine import Gpu
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import current
from tests.flurka.agreement import check_gradients
from tests.flurka.strategies import MAPS, Case, cases
from tests.flurka.targets.sm90.test_build import problem
from tests.flurka.targets.sm90.test_forward import OPERAND
from tests.profiles import draws

USUAL = Case(dtype="bfloat16", seq_q=70, seq_kv=100, rank=40, head_dim=64, value_dim=64)
GPU = Gpu()
ELEMENTWISE = tuple(name for name in MAPS if name not in ("favor", "rfa"))
KINDS = [(method, phi) for method in ("flurka", "kernel") for phi in ELEMENTWISE]


def check(case, backend="emulate", **options):
    return check_gradients(case, operand=OPERAND[case.dtype], backend=backend, **options)


def on_tensor_cores(case):
    """FLuRKA with key lengths is computed in float32: gpu/composed/test_emulated.py."""
    return case.method == "kernel" or case.kv_lengths is None


@settings(max_examples=draws(15))
@given(cases(kinds=KINDS, maps=ELEMENTWISE, dtypes=tuple(OPERAND)).filter(on_tensor_cores))
@example(Case(dtype="float16", seq_q=0))
@example(Case(dtype="float16", seq_kv=0))
@example(Case(dtype="float16", rank=0))
@example(Case(dtype="float16", method="kernel", seq_kv=0))
@example(Case(dtype="bfloat16", method="kernel", batch=2, seq_kv=100, kv_lengths=(0, 65)))
def test_every_case_agrees_with_the_oracle(case):
    check(case)


WAYS = {
    "usual": {},
    "blocks that share a state": {"method": "kernel", "seq_kv": 700, "seq_q": 600, "heads": 1},
    "two blocks of features and values": {"head_dim": 100, "value_dim": 72, "heads": 1},
    "projections of their own, shared": {"per_head": True, "shared": True, "batch": 2},
    "shared projection": {"shared": True},
    "batch entries, many heads and slots": {"batch": 2, "heads": 3, "rank": 80, "seq_kv": 300},
    "more slots than a block holds": {"rank": 260, "seq_kv": 270, "heads": 1},
    "heads of the least size for one pass": {"head_dim": 33, "value_dim": 36, "batch": 2, "seq_q": 200},
    "odd lengths": {"seq_q": 129, "seq_kv": 65, "rank": 33, "head_dim": 60, "value_dim": 52, "dtype": "float16"},
    "softplus": {"feature_map": "softplus"},
    "relu": {"feature_map": "relu", "dtype": "float16"},
    "corners": {"feature_map": "corners", "method": "kernel"},
}


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_each_way(changes):
    check(USUAL.but(**changes))


@pytest.mark.parametrize("frozen", [("q",), ("k", "v"), ("proj_k", "proj_v"), ("v", "proj_v"), ("q", "k", "proj_v")])
def test_frozen_arguments_have_none(frozen):
    check(USUAL.but(seq_q=20, seq_kv=40), frozen=frozen)


def test_gradients_of_keys_beyond_a_length_are_0_and_nan_there_reaches_nothing():
    case = USUAL.but(method="kernel", batch=2, kv_lengths=(100, 70))
    arrays = case.arrays()
    arrays["k"][1, :, 70:], arrays["v"][1, :, 70:] = np.nan, np.inf
    _, vjp = case.run_vjp(arrays, backend="emulate")
    dq, dk, dv, *_ = (None if one is None else one.astype(np.float32) for one in vjp(case.dout()))
    assert np.isfinite(dq).all()
    assert not dk[1, :, 70:].any()
    assert not dv[1, :, 70:].any()


def test_a_dout_that_does_not_fit():
    with pytest.raises(ArgumentError, match=r"dout wanted of shape"):
        USUAL.run_vjp(backend="emulate")[1](np.zeros(3, USUAL.dout().dtype))


@pytest.mark.parametrize("changes", [{"head_dim": 256}, {"phi": "favor"}])
def test_what_the_tensor_cores_have_not_is_refused_as_a_plan(changes):
    with pytest.raises(TypeError):
        gradient_plan(problem("kernel", **changes), GPU.multiprocessors)


def test_flurka_is_kernel_attention_over_slots():
    inner = over_slots(problem(rank=40, per_head_proj=True, shared_proj=True))
    assert (inner.method, inner.seq_kv, inner.rank, inner.per_head_proj, inner.shared_proj) == ("kernel", 40, 0, 0, 0)


# Of the gradients of wide heads: x, y and both results are more than the 255 registers of a thread. ptxas then reads
# some back from memory, and ends groups of products early (C7514, C7517).
WIDE_SPILLS = 128


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize("dims", [(64, 64), (80, 44), (128, 128), (40, 44)])
def test_every_stage_compiles(dims):
    plan = gradient_plan(problem("kernel", head_dim=dims[0], value_dim=dims[1]), GPU.multiprocessors)
    for stage in plan.stages:
        check_report(stage, wide="gradients" in stage.text.name and sum(dims) > 128)


PROJECTED = {
    "usual": {"rank": 256},
    "few slots": {"rank": 64, "dtype": "float16"},
    "shared": {"rank": 128, "shared_proj": True, "head_dim": 80, "value_dim": 48},
    "many slots, of each head": {"rank": 576, "per_head_proj": True, "heads": 4},
}


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize("changes", PROJECTED.values(), ids=PROJECTED)
def test_the_stages_of_tokens_and_projections_compile(changes):
    both = frozenset("kv")
    planned = [stage(problem(**changes), both, GPU.multiprocessors) for stage in (projection_stage, token_stage)]
    assert (planned[1] is None) == bool(changes.get("per_head_proj"))
    for found in planned:
        if found is not None:
            check_report(found[0], wide=False)


@pytest.mark.usefixtures("cuda_compiler")
def test_the_stages_of_slots_with_scales_compile():
    outer = problem(dtype="float16")
    plan = gradient_plan(over_slots(outer), GPU.multiprocessors, outer)
    for stage in (plan.keys, plan.of_slots):  # the two that hold more than bfloat16's
        check_report(stage, wide=False)


def test_warpgroups_have_no_more_registers_than_their_block_begins_with():
    fetching, others = REGISTERS
    stage, _ = token_stage(problem(), frozenset("kv"), GPU.multiprocessors)
    at_first = GPU.registers // stage.text.entry.threads // 8 * 8
    assert fetching + GROUPS * others <= (GROUPS + 1) * at_first


def check_report(stage, *, wide):
    from splat_numba.runtime.cuda.build import build

    report = build(KernelSource.of(stage.text.name, stage.text.render()), stage.text.entry, current()).report
    assert report.spill_bytes <= (WIDE_SPILLS if wide else 0), (stage.text.name, report.log)
    assert wide or report.warnings == (), stage.text.name
    assert report.shared_bytes <= GPU.shared_bytes
    assert report.registers * stage.text.entry.threads * stage.text.entry.blocks <= GPU.registers
