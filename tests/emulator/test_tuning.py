"""autotune=True on an emulated GPU: the fastest candidate wins, is kept on disk, and gives right results."""

import gc
from dataclasses import replace

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.api import make_problem
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executors.executor import Part
from splat_numba.executors.given import Given, split_parts
from splat_numba.executors.gpu import tuning as gpu_tuning
from splat_numba.executors.gpu.executor import CompiledPasses, CudaExecutor
from splat_numba.executors.gpu.trial import operand_sets, trial_calls
from splat_numba.executors.gpu.tuning import MOST, TunedExecutor, tuned_plan
from splat_numba.kernel import Kernel
from splat_numba.runtime.cuda import timing
from splat_numba.runtime.cuda.device import device
from splat_numba.settings import current
from splat_numba.testing import Problem, check_attention
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.gpu.device_views import DeviceView
from tests.runtime.fake_cuda import FakeDriver, Status, forget, install

MASK = splat.window(20, 3)
SHAPE = {"seq_q": 150, "seq_kv": 150, "head_dim": 64, "dtype": "float16"}


@pytest.fixture(autouse=True)
def _own_choices(tmp_path, monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))
    tuned_plan.cache_clear()
    yield
    tuned_plan.cache_clear()


@pytest.fixture
def fake(monkeypatch):
    yield emulated(monkeypatch)
    gc.collect()  # a caught exception keeps frames, and those keep arrays, which are freed by this driver
    forget_emulated()


class Timer:
    """Runs every call once, so that a candidate that cannot run fails, and says that number ``fastest`` is fastest."""

    def __init__(self, fastest, runs=True):
        self.fastest, self.runs, self.asked = fastest, runs, 0

    def __call__(self, calls, _device):
        self.asked += 1
        for call in calls if self.runs else ():
            call(0)
        return [1e-6 if number == self.fastest else (number + 2) * 1e-6 for number in range(len(calls))]


def arrays(seed=0, length=150, heads=1):
    rng = np.random.default_rng(seed)
    return [rng.standard_normal((heads, length, 64)).astype(np.float16) for _ in range(3)]


def measured(plan):
    """The choice in a plan that says what was measured, None where nothing was."""
    return next((choice for choice in plan.choices if "measured" in choice.reason), None)


def kernel_of(timer, mask=MASK, **changes):
    sizes = {"value_dim": None, "heads_q": 1, "heads_kv": None, "batch": 1} | SHAPE | changes
    problem, executor = make_problem(**sizes), TunedExecutor(timer=timer)
    return Kernel(split_parts(executor, mask, problem, 0.125, current()), problem, 0.125, "bhsd", executor)


@pytest.mark.parametrize("fastest", [0, 1, MOST - 1])
@pytest.mark.usefixtures("fake")
def test_the_fastest_candidate_is_the_plan(fastest):
    predicted = splat.plan(MASK, **SHAPE, backend="cuda")
    kernel = kernel_of(Timer(fastest))
    choice = measured(kernel.plan)
    assert len(choice.refused) == MOST - 1
    shape = [(one.tile_q, one.tile_kv) for one in kernel.plan.passes]
    assert choice.chosen.endswith(", then ".join(f"{rows} queries x {keys} keys" for rows, keys in shape))
    assert (shape == [(one.tile_q, one.tile_kv) for one in predicted.passes]) == (fastest == 0)
    assert measured(predicted) is None


@pytest.mark.usefixtures("fake")
def test_explain_says_that_it_was_measured():
    text = kernel_of(Timer(2)).explain()
    assert "(measured 1 us, predicted " in text
    assert f"the least of {MOST} timed on NVIDIA Fake)" in text
    assert "  refused   rows in order: " in text
    assert "keys: measured 2 us, predicted" in text


@pytest.mark.usefixtures("fake")
def test_the_choice_is_kept_and_read():
    first, again = Timer(3), Timer(1, runs=False)
    chosen = kernel_of(first).plan
    tuned_plan.cache_clear()  # as another process has none
    assert measured(kernel_of(again).plan) == measured(chosen)
    assert (first.asked, again.asked) == (1, 0)
    assert kernel_of(again, mask=splat.window(21, 3)).plan.passes
    assert kernel_of(again, batch=2).plan.passes
    assert again.asked == 2


@pytest.mark.usefixtures("fake")
def test_a_damaged_file_is_measured_again(tmp_path):
    kernel_of(Timer(3, runs=False))
    (file,) = tmp_path.glob("cache/*/measured_*.json")
    file.write_text(file.read_text()[:-20])
    tuned_plan.cache_clear()
    again = Timer(1, runs=False)
    shape = kernel_of(again).plan.passes[0].traits
    assert again.asked == 1
    tuned_plan.cache_clear()
    assert kernel_of(again).plan.passes[0].traits == shape
    assert again.asked == 1


@pytest.mark.usefixtures("fake")
def test_without_a_cache_every_process_measures(monkeypatch, tmp_path):
    monkeypatch.setenv("SPLAT_CACHE", "0")
    timer = Timer(1, runs=False)
    for _ in range(2):
        kernel_of(timer)
        tuned_plan.cache_clear()
    assert timer.asked == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("mask", "kv_lengths"),
    [(MASK, None), (splat.dilated(9, 4), None), (splat.causal(), (100,))],
    ids=["window", "dilated", "key lengths"],
)
@pytest.mark.usefixtures("fake")
def test_results_are_right(mask, kv_lengths):
    problem = Problem(150, 150, mask, "float16", batch=1, heads_q=1, head_dim=64, kv_lengths=kv_lengths)
    executor = TunedExecutor(timer=Timer(2, runs=False))

    def implementation(q, k, v, mask, *, scale=None, return_lse=False, layout="bhsd", kv_lengths=None, **_):
        return executor.attend(Given(mask, executor, layout, scale), q, k, v, kv_lengths, None, return_lse)

    check_attention(problem, attention=implementation)


@pytest.mark.usefixtures("fake")
def test_a_mask_a_head_is_timed_for_its_heads():
    timer = Timer(1)
    kernel = kernel_of(timer, mask=[MASK, splat.causal(), MASK], heads_q=3, seq_q=70, seq_kv=70)
    assert timer.asked == 2
    assert [part.heads for part in kernel.parts] == [(0, 2), (1,)]
    assert all(measured(part.plan) for part in kernel.parts)


@pytest.mark.usefixtures("fake")
def test_other_lengths_are_timed_at_their_first_call():
    timer = Timer(1, runs=False)
    kernel = kernel_of(timer)
    q, k, v = arrays(length=90)
    for _ in range(2):
        found = kernel(q, k, v)
    wanted = splat.reference.attention(q, k, v, splat.geometry(MASK, 90, 90).to_dense())
    assert np.abs(found - wanted).max() < 0.01
    assert timer.asked == 2


@pytest.mark.usefixtures("fake")
def test_nothing_to_run_is_not_timed():
    timer = Timer(1)
    for changes in ({"seq_q": 0}, {"seq_kv": 0}, {"batch": 0}):
        assert measured(kernel_of(timer, mask=splat.full(), **changes).plan) is None
    assert timer.asked == 0


def test_a_call_without_autotune_does_not_take_its_plan(fake):
    root = arrays(heads=1)
    q, k, v = (DeviceView(one, one) for one in root)
    executor = TunedExecutor(timer=Timer(5, runs=False))
    zeros = np.zeros_like(root[0])
    out = DeviceView(zeros, zeros)
    mask = splat.window(20, 3)
    for one in (CudaExecutor(), executor) * 2:
        one.attend(Given(mask, one, "bhsd", None), q, k, v, None, out, False)
    assert len(set(fake.functions)) == len(fake.functions) == 2  # each loaded once


def test_a_first_call_during_a_capture_is_refused(fake):
    root = arrays()[0]
    q = DeviceView(root, root)
    executor = TunedExecutor(timer=Timer(0, runs=False))
    recipe = Given(splat.window(20, 3), executor, "bhsd", None)
    zeros = np.zeros_like(root)
    out = DeviceView(zeros, zeros)
    fake.capturing = True
    with pytest.raises(BackendError) as caught:
        executor.attend(recipe, q, q, q, None, out, False)
    assert str(caught.value) == (
        "autotune wanted outside of a graph's capture, since kernels may be compiled and timed, got a stream that is "
        "being captured. Make one such call before the capture."
    )
    fake.capturing = False
    executor.attend(recipe, q, q, q, None, out, False)
    fake.capturing = True
    executor.attend(recipe, q, q, q, None, out, False)
    assert executor.timer.asked == 1


def test_the_public_way(fake, monkeypatch):
    monkeypatch.setattr(timing, "BLANKET_BYTES", 1024)
    monkeypatch.setattr(timing, "ROUNDS", 1)
    monkeypatch.setattr(timing, "MOST_LAUNCHES", 1)
    monkeypatch.setattr(gpu_tuning, "MOST", 2)
    q, k, v = arrays(length=70)
    mask = splat.window(9)
    found = splat.attention(q, k, v, mask, backend="cuda", autotune=True)
    wanted = splat.reference.attention(q, k, v, splat.geometry(mask, 70, 70).to_dense())
    assert np.abs(found - wanted).max() < 0.01
    kernel = splat.compile(mask, **(SHAPE | {"seq_q": 70, "seq_kv": 70}), backend="cuda", autotune=True)
    assert "the least of 2 timed on NVIDIA Fake" in kernel.explain()
    assert fake.contexts == [0]


@pytest.mark.parametrize("ragged", [False, True])
def test_operands_are_given_back_at_once(fake, ragged):
    problem = kernel_of(Timer(0, runs=False)).problem
    gc.collect()
    part = Part(MASK, None, splat.plan(MASK, **SHAPE, backend="cuda"), CompiledPasses((), (), ()))
    gc.disable()
    try:
        before = len(fake.freed)
        calls = trial_calls([replace(part, plan=replace(part.plan, passes=()))], problem, device(0), ragged=ragged)
        assert len(fake.freed) == before
        del calls
        assert len(fake.freed) >= before + 8 * 4 + 1 + ragged
    finally:
        gc.enable()


def test_small_operands_take_turns_and_large_ones_do_not(fake):
    problem = kernel_of(Timer(0, runs=False)).problem
    sets = operand_sets(problem, device(0))
    assert len(sets) == 8
    pointers = [array.pointer for one in sets for array in one]
    assert len(set(pointers)) == len(pointers)
    words = fake.device_memory.read(sets[0][0].pointer, sets[0][0].nbytes).view(np.float16)
    assert 0.9 < words.std() < 1.1


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_operands_of_any_dtype(fake, dtype):
    problem = replace(
        make_problem(**{"value_dim": None, "heads_q": 1, "heads_kv": None, "batch": 1} | SHAPE), dtype=dtype
    )
    first = operand_sets(problem, device(0))[0][0]
    assert first.dtype == dtype
    numbers = fake.device_memory.read(first.pointer, first.nbytes).view(dtype)
    assert numbers.size == 150 * 64
    assert 0.9 < numbers.std() < 1.1


def test_the_emulator_measures_nothing():
    q = np.zeros((8, 64), np.float16)
    for call in (
        lambda: splat.attention(q, q, q, splat.causal(), backend="emulate", autotune=True),
        lambda: splat.attention_vjp(q, q, q, splat.causal(), backend="emulate", autotune=True),
        lambda: splat.compile(splat.causal(), **SHAPE, backend="emulate", autotune=True),
    ):
        with pytest.raises(ArgumentError) as caught:
            call()
        assert str(caught.value) == (
            "autotune wanted with backend 'cuda' or 'cpu', whose plans it times, got backend 'emulate', whose time "
            "tells nothing. Leave autotune out, or give another backend."
        )


def test_without_a_gpu_compile_says_so(monkeypatch):
    install(monkeypatch, FakeDriver(status=Status.CUDA_ERROR_NO_DEVICE))
    with pytest.raises(BackendError) as caught:
        splat.compile(splat.causal(), **SHAPE, backend="cuda", autotune=True)
    assert str(caught.value) == (
        "autotune wanted a GPU to time kernels on: backend 'cuda' wanted an NVIDIA GPU, got "
        "CUDA_ERROR_NO_DEVICE from the driver. Run it where one is, or give backend='cpu'. Or leave autotune out."
    )
    forget()


@pytest.mark.usefixtures("fake")
def test_passes_of_several_orders_are_candidates_too():
    mask = splat.sparse_transformer_strided(13)
    plan = kernel_of(Timer(4), mask=mask).plan
    assert measured(plan)
