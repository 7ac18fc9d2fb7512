"""Which of a GPU's targets a call gets: the rule, requests that never fall back, and what a layer says of it."""

import ml_dtypes
import numpy as np
import pytest

from flurka_numba import FlurkaLayer
from flurka_numba.gpu.choice import TARGETS, choose_target
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.gen.plans.machine import GPU, SHARED_BYTES, gpu_of
from splat_numba.gen.targets.registry import targets_of
from tests.flurka.targets.sm90.test_build import problem

HOPPER, AMPERE, TURING = gpu_of((9, 0)), gpu_of((8, 0)), gpu_of((7, 5))


def test_targets_are_asked_in_splat_numbas_order():
    assert list(TARGETS) == [name for name in targets_of(GPU) if name in TARGETS]


@pytest.mark.parametrize(
    ("one", "gpu", "forward", "gradients"),
    [
        (problem(), HOPPER, "sm_90a", "sm_90a"),
        (problem(), AMPERE, "sm80", "sm80"),
        (problem(dtype="float32"), HOPPER, "simt", "simt"),
        (problem("kernel", dtype="float32"), TURING, "simt", "simt"),
        (problem("low_rank"), HOPPER, "sm_90a", "sm80"),
        (problem(phi="favor", rows=300), HOPPER, "sm80", "sm80"),
        (problem("kernel", phi="rfa"), HOPPER, "sm_90a", "sm80"),
    ],
)
def test_the_rule(one, gpu, forward, gradients):
    assert choose_target(None, one, gpu).chosen == forward
    assert choose_target(None, one, gpu, gradients=True).chosen == gradients


@pytest.mark.parametrize("capability", sorted(SHARED_BYTES), ids=str)
def test_float32_runs_on_every_gpu_and_16_bits_on_those_from_ampere_on(capability):
    assert choose_target(None, problem(dtype="float32"), gpu_of(capability)).chosen == "simt"
    if capability >= (8, 0):
        for spelled in ("sm80", "sm_80"):
            assert choose_target(spelled, problem(), gpu_of(capability), gradients=True).chosen == "sm80"
        return
    with pytest.raises(BackendError, match=r"^target wanted for a GPU of compute capability 7.5, got"):
        choose_target(None, problem(), gpu_of(capability))


def test_arrays_that_cannot_be_multiplied_have_no_use_for_stages_that_leave_products_to_them():
    assert choose_target(None, problem(), HOPPER, gradients=True, multiplies=False).chosen == "sm80"


REFUSED = {
    "a dtype": (
        "sm80",
        {"dtype": "float32"},
        HOPPER,
        ArgumentTypeError,
        r"^dtype wanted as float16 or bfloat16",
    ),
    "a chip": (
        "sm_90a",
        {},
        AMPERE,
        BackendError,
        r"^target 'sm_90a' does not run on compute capability 8.0",
    ),
    "no stages": (
        "sm_90a",
        {"phi": "favor", "rows": 300},
        HOPPER,
        BackendError,
        r"^target 'sm_90a' has no stages",
    ),
    "no such target": (
        "cpu",
        {},
        HOPPER,
        BackendError,
        r"^target wanted as None, 'sm_90a', 'sm80' or 'simt'",
    ),
}


@pytest.mark.parametrize(("target", "changes", "gpu", "error", "text"), REFUSED.values(), ids=REFUSED)
def test_a_request_never_falls_back(target, changes, gpu, error, text):
    with pytest.raises(error, match=text):
        choose_target(target, problem(**changes), gpu)


def layer(dtype, heads=2):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal((16, 16)).astype(dtype) for _ in range(4)]
    return FlurkaLayer(*weights, rng.standard_normal((4, 8)).astype(dtype), heads=heads)


def test_a_layer_says_which_target_makes_its_attention_and_why():
    lines = layer(ml_dtypes.bfloat16).explain(capability=(8, 6)).splitlines()
    where = lines.index("On a GPU of compute capability 8.6:")
    assert [line.split()[0] for line in lines[where + 1 :]] == ["forward", "refused", "with", "refused"]
    assert "sm80" in lines[where + 1]
    assert lines[where + 2].split() == [
        "refused",
        "sm_90a:",
        "does",
        "not",
        "run",
        "on",
        "compute",
        "capability",
        "8.6",
    ]
    assert "On a GPU" not in layer(np.float32).explain()
    with pytest.raises(ArgumentError, match=r"^capability wanted as one of \(7, 5\), .*, got \(6, 1\)"):
        layer(np.float32).explain(capability=(6, 1))
