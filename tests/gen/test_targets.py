"""Targets are values: one that the library does not know is planned, explained, chosen and run."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

import flurka_numba
import splat_numba as splat
from splat_numba.cli import options
from splat_numba.cli.entry import APP
from splat_numba.cli.options import CommandError, Place
from splat_numba.emulator.cpu_text import emulate
from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.gpu.parts import backward_plan_for
from splat_numba.gen.plans.machine import Gpu, gpu_of
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.cpu.target import NumbaCpu
from splat_numba.gen.targets.registry import TARGETS, choose_target
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.runtime.cpu import code
from splat_numba.testing import Problem as Case
from splat_numba.testing import check_attention, check_gradients
from tests.gen.toy_target import Toy
from tests.import_layers import python


@pytest.fixture(autouse=True)
def _toy():
    """Before the targets that take float32; their order is put back, too."""
    usual = dict(TARGETS)
    first = {name: one for name, one in usual.items() if name not in {"sm80", "simt"}}
    TARGETS.clear()
    TARGETS.update({**first, "toy": Toy(), **usual})
    yield
    TARGETS.clear()
    TARGETS.update(usual)


@pytest.mark.parametrize(
    "case",
    [
        Case(34, 40, splat.causal().align_end() | splat.strided(8), "float32", heads_q=4, heads_kv=2, head_dim=8),
        Case(33, 33, [splat.window(5), splat.full()], "float32", batch=2, heads_q=2, kv_lengths=(0, 20)),
        Case(40, 30, splat.bigbird(8, n_window=3), "float32", heads_q=1, head_dim=7, value_dim=5),
    ],
    ids=["grouped heads", "a mask a head, key lengths", "odd dims"],
)
def test_a_target_of_ones_own_runs_on_the_emulator(case):
    check_attention(case, backend="emulate", target="toy")


def test_a_call_gets_the_first_target_that_takes_it_and_the_plan_says_why():
    sizes = {"seq_q": 40, "seq_kv": 40, "head_dim": 8, "backend": "emulate"}
    half = splat.plan(splat.causal(), dtype="float16", **sizes)
    real = splat.plan(splat.causal(), dtype="float32", **sizes)
    assert (half.target, real.target) == ("sm_90a", "toy")
    assert "chosen      target: toy (the first that takes this GPU, dtype and dims)" in real.explain()
    assert "refused   sm_90a: wanted as float16 or bfloat16" in real.explain()
    assert "pass 0      a row a lane" in real.explain()
    assert "target: sm_90a" in half.explain()


class Slower(NumbaCpu):
    """A CPU's target whose plans say so."""

    def plan(self, *given):
        return replace(super().plan(*given), target=self.name)

    def refusal(self, problem):
        return None if problem.dtype == "float64" else f"wanted as float64 for {self.name}, got {problem.dtype}."


def test_a_cpu_is_chosen_as_a_gpu_is_and_the_plan_says_why(monkeypatch):
    sizes = {"seq_q": 40, "seq_kv": 40, "head_dim": 8}
    usual = splat.plan(splat.causal(), dtype="float64", **sizes)
    assert "chosen      target: cpu (the first that takes this CPU, dtype and dims)" in usual.explain()
    explained = splat.plan(splat.causal(), dtype="float64", target="cpu", **sizes).explain()
    assert "target: cpu (the one that was asked for)" in explained
    monkeypatch.setitem(TARGETS, "slower", Slower(name="slower"))
    assert splat.plan(splat.causal(), dtype="float64", **sizes) == usual
    asked = splat.plan(splat.causal(), dtype="float64", target="slower", **sizes)
    assert asked.target == "slower"
    assert "target: slower (the one that was asked for)" in asked.explain()
    (text,) = choose_executor("cpu", "slower").sources(asked)
    (other,) = choose_executor("cpu", None).sources(usual)
    assert text.text == other.text.replace("target cpu", "target slower")
    with pytest.raises(ArgumentTypeError, match=r"^dtype wanted as float64 for slower, got float32"):
        splat.plan(splat.causal(), dtype="float32", target="slower", **sizes)
    with pytest.raises(BackendError, match=r"^target wanted as None, 'cpu' or 'slower' for backend 'cpu', got 'toy'"):
        splat.plan(splat.causal(), dtype="float32", target="toy", backend="cpu", **sizes)
    with pytest.raises(BackendError, match=r"^target wanted as None, 'sm_90a', 'toy', 'sm80' or 'simt'"):
        splat.plan(splat.causal(), dtype="float16", target="slower", backend="cuda", **sizes)


def test_a_cpu_target_of_ones_own_runs_forward_and_back(monkeypatch):
    """Its texts on the emulator, in place of machine code."""
    asked = []

    def emulated(text, *_):
        asked.append(text.name)
        return SimpleNamespace(functions=emulate(text))

    monkeypatch.setitem(TARGETS, "slower", Slower(name="slower"))
    monkeypatch.setattr(code, "compile_text", emulated)
    case = Case(20, 24, splat.window(5, 3) | splat.strided(4), "float64", heads_q=2, heads_kv=1, head_dim=5)
    check_attention(case, backend="cpu", target="slower")
    check_gradients(case, backend="cpu", target="slower")
    assert len(set(asked)) == 2


def test_commands_take_the_dtypes_that_targets_take(monkeypatch):
    def dtype(*words):
        _, bound, _ = APP.parse_args(["source", "causal()", *words])
        return bound.arguments.get("place", Place()).chosen_dtype()

    monkeypatch.setitem(options.OF_BACKEND, "auto", tuple(TARGETS))
    monkeypatch.setitem(options.OF_BACKEND, "cuda", ("sm_90a", "toy"))
    assert dtype("--backend", "cuda") == "float16"
    assert dtype("--backend", "cuda", "--dtype", "float32") == "float32"
    with pytest.raises(CommandError, match="--dtype wanted as float16 or bfloat16 or float32 for --backend cuda, got"):
        dtype("--backend", "cuda", "--dtype", "float64")
    with pytest.raises(CommandError, match="--dtype wanted as float16 or bfloat16 for --backend cuda, got float32"):
        dtype("--backend", "cuda", "--target", "sm_90a", "--dtype", "float32")


def test_the_values_of_targets_load_no_planner():
    """Every call sees the values of all targets, and would wait for what it does not use."""
    code = "import sys, splat_numba.gen.targets.registry; print([name for name in sys.modules if '.planning' in name])"
    assert python(code) == "[]"


def test_the_other_package_has_no_text_for_it():
    with pytest.raises(
        BackendError, match=r"^target wanted as None, 'sm_90a', 'sm80' or 'simt' in flurka_numba, got 'toy'"
    ):
        flurka_numba.kernel_attention(*(np.zeros((8, 8), np.float16),) * 3, backend="emulate", target="toy")


def test_what_no_target_takes_is_refused_by_name():
    with pytest.raises(ArgumentTypeError, match=r"^dtype wanted as float16 or bfloat16 .*, got float64"):
        splat.plan(splat.causal(), seq_q=8, seq_kv=8, head_dim=8, dtype="float64", backend="emulate", target="sm_90a")
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as float32 for the toy, got float16"):
        splat.attention(*(np.zeros((8, 8), np.float16),) * 3, splat.causal(), backend="emulate", target="toy")
    message = r"^target wanted for a GPU of compute capability 7\.0, got sm_90a, toy, sm80, simt\."
    with pytest.raises(BackendError, match=message):
        choose_target(None, Problem(8, 8, 8, 8, "float32"), Gpu(capability=(7, 0)))


def test_16_bits_have_tensor_cores_from_ampere_on_and_are_refused_before():
    half = Problem(8, 8, 8, 8, "float16")
    assert choose_target(None, half, Gpu(capability=(9, 0)))[0].name == "sm_90a"
    target, why = choose_target(None, half, Gpu(capability=(8, 0)))
    assert target.name == "sm80"
    assert ("sm_90a", "does not run on compute capability 8.0") in why.refused
    assert choose_target("sm80", half, Gpu(capability=(9, 0)))[0].name == "sm80"
    assert choose_target("simt", half, Gpu(capability=(8, 0)))[0].name == "simt"
    turing, single = Gpu(capability=(7, 5)), Problem(8, 8, 8, 8, "float32")
    assert choose_target(None, single, turing)[0].name == "simt"
    for request in (None, "sm80", "simt"):  # whose conversions in pairs do not link there
        with pytest.raises(BackendError, match=r"^target wanted for a GPU of compute capability 7\.5, got .*s"):
            choose_target(request, half, turing)
    wanted = r"^dtype wanted as float16, bfloat16 or float32 for target 'sm80', got float64"
    with pytest.raises(ArgumentTypeError, match=wanted):
        choose_target("sm80", Problem(8, 8, 8, 8, "float64"), Gpu(capability=(9, 0)))


@pytest.mark.parametrize(
    ("capability", "head_dim", "precision", "name", "why"),
    [
        ((9, 0), 64, "ieee", "sm80", ""),
        ((8, 6), 64, "ieee", "simt", "three products of TF32 make 60 operations a cycle, FMA units 179"),
        ((8, 6), 64, "tf32", "sm80", ""),
        ((9, 0), 256, "ieee", "simt", "has no tile for these dims"),
        ((7, 5), 64, "ieee", "simt", "does not run on compute capability 7.5"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("_no_toy")
def test_float32_goes_to_tensor_cores_where_they_are_faster(capability, head_dim, precision, name, why):
    single = Problem(8, 8, head_dim, head_dim, "float32", precision=precision)
    target, choice = choose_target(None, single, gpu_of(capability))
    assert target.name == name
    assert dict(choice.refused).get("sm80", "").startswith(why)
    if head_dim < 256 and capability > (7, 5):
        assert choose_target("sm80", single, gpu_of(capability))[0].name == "sm80"


@pytest.fixture
def _no_toy(monkeypatch, _toy):
    monkeypatch.delitem(TARGETS, "toy")


@pytest.mark.parametrize("dims", [(8, 8), (256, 256)], ids=str)
@pytest.mark.parametrize("capability", sorted(SM80.capabilities), ids=str)
def test_gradients_of_16_bits_are_made_by_the_target_of_the_forward_pass(capability, dims):
    gpu, half = gpu_of(capability), Problem(8, 8, *dims, "float16")
    found = backward_plan_for(splat.causal(), half, gpu, None, Conditions())
    assert found.target == choose_target(None, half, gpu)[0].name
    assert backward_plan_for(splat.causal(), half, gpu, "sm80", Conditions()).target == "sm80"
