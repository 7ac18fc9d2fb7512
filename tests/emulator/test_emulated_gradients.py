"""Gradients through the emulated GPU, with the runtime as it is: by name, drawn, and with faults planted in texts."""

import re
import traceback
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from splat_numba.emulator import machine
from splat_numba.errors import EmulationError
from splat_numba.gen.targets.sm90.shape import keys_descriptor
from splat_numba.testing import Problem, check_gradients, masks, patterns, problems
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.emulator.planted_fences import WithoutFences
from tests.gradient_cases import CASES, WINDOW
from tests.profiles import draws

TYPES = ("float16", "bfloat16")
KINDS = ((1, 3), (20, 20), (64, 64), (40, 128), (256, 192))


@pytest.mark.parametrize("name", CASES)
def test_every_case(name):
    check_gradients(CASES[name], backend="emulate")


@pytest.mark.parametrize("late", [False, True], ids=["copies at once", "copies late"])
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: "x".join(map(str, kind)))
@settings(max_examples=draws(16), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem(kind, late, monkeypatch, data):
    mask = data.draw(st.sampled_from([masks, patterns]))
    problem = data.draw(problems(dtypes=TYPES, max_length=100, mask=mask))
    frozen = data.draw(st.sampled_from([(), (), ("q",), ("k", "v"), ("v",)]))
    with monkeypatch.context() as patch:
        emulated(patch, late=late)
        check_gradients(replace(problem, head_dim=kind[0], value_dim=kind[1]), backend="cuda", frozen=frozen)
    forget_emulated()


PROBLEM = Problem(200, 230, WINDOW, "float16", 1, 2, 1, head_dim=64, spread=2.0)
NO_SWIZZLE = keys_descriptor() & ~(1 << 62)
FAULTS = {
    "tile bound": (r"place < end_of_pieces", "place < end_of_pieces - u32(1)"),
    "heads of a group": (r"while place < end:", "while place < end - u32(1):"),
    "predicate": (r"\(8 \* \(j & 3\) \+ x\)", "(8 * (j & 3) + x ^ 1)"),
    "no swizzle": (str(keys_descriptor()), str(NO_SWIZZLE)),
    "wait for tiles": (r"ptx\.mbarrier_wait\(base \+ RIGHT_FULL [^\n]*", "pass"),
    "wait for the left tile": (r"ptx\.mbarrier_wait\(base \+ LEFT_FULL [^\n]*", "pass"),
    "wait for products": (r"ptx\.wgmma_wait_but_one\(\)", "pass"),
    "tile given back before it is read": (
        r"( +)(ptx\.wgmma_wait_all\(\))\n( +)(give_right_back\(base, stage\))", r"\1\4\n\3\2",
    ),
    "tiles never given back": (r"ptx\.mbarrier_arrive\(base \+ RIGHT_EMPTY [^\n]*", "pass"),
    "bytes of a copy": (r"RIGHT_1_BYTES \+ RIGHT_2_BYTES", "RIGHT_1_BYTES"),
    "delta": (r"delta = total if", "delta = f32(0.5) * total if"),
    "levels of a column": (r"\(column \+ u32\(8 \* j \+ x\)\)", "(column + u32(8 * j))"),
    "scale": (r"dk_total, scale,", "dk_total, f32(1.0),"),
    "counter": (r"ptx\.store_word\(counter, u32\(0\), last_block\)", "pass"),
}  # fmt: skip


def run(monkeypatch, change, late):
    with monkeypatch.context() as patch:
        emulated(patch, late=late, change=change)
        try:
            for _ in range(2):  # the second call finds what the first leaves behind
                check_gradients(PROBLEM, backend="cuda")
        except (AssertionError, EmulationError) as error:
            traceback.clear_frames(error.__traceback__)  # whose arrays are given back while the driver is there
            raise
        finally:
            forget_emulated()


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_found(monkeypatch, fault):
    pattern, replacement = FAULTS[fault]
    met = set()

    def change(text):
        changed = re.sub(pattern, replacement, text)
        met.add(changed != text)
        return changed

    with pytest.raises((AssertionError, EmulationError)) as found:  # noqa: PT012 - by either of the two
        run(monkeypatch, change, late=True)
        run(monkeypatch, change, late=False)
    assert True in met, "no text has what this test changes"
    assert str(found.value)


def test_no_fence_can_be_left_out(monkeypatch):
    planted = WithoutFences()
    monkeypatch.setattr(machine, "launch", planted)
    check_gradients(Problem(100, 90, WINDOW, "bfloat16", 2, 2, 1, head_dim=32, kv_lengths=(90, 33)), backend="emulate")
    assert "attention_gradients" in planted.entries
    assert not planted.survivors
