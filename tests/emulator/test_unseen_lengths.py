"""Key lengths on a GPU are read by kernels alone: they count as the nearest number from 0 to the keys, and no other
memory is read.
"""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import flurka_numba
import splat_numba as splat
from splat_numba.emulator.machine import EmulatedMachine

KEYS = 20
UNSEEN = {7: 7, -1: 0, -(2**31): 0, KEYS + 1: KEYS, 2**31 - 1: KEYS}  # behind the last one's rows is nothing


@pytest.fixture
def unseen(monkeypatch):
    """A function, after which kernels find the lengths that nobody saw in place of those that they count as."""

    def begin():
        place = EmulatedMachine.place_table

        def placed(machine, name, data):
            if name == "kv_lengths":
                assert data.tolist() == [*UNSEEN.values()]
                data = np.array([*UNSEEN], np.int32)
            place(machine, name, data)

        monkeypatch.setattr(EmulatedMachine, "place_table", placed)

    return begin


def check(unseen, results):
    wanted = results()
    unseen()
    for found, right in zip(results(), wanted, strict=True):
        assert_array_equal(found, right)


def rows(dtype, seq):
    return np.random.default_rng(seq).standard_normal((len(UNSEEN), 1, seq, 8)).astype(dtype)


@pytest.mark.parametrize(
    ("target", "dtype"), [("simt", "float32"), ("sm80", "float16"), ("sm80", "float32"), ("sm_90a", "float16")]
)
def test_lengths_are_the_nearest_within_the_keys(target, dtype, unseen):
    q, k, v, dout = (rows(dtype, seq) for seq in (5, KEYS, KEYS, 5))

    def results():
        options = {"kv_lengths": [*UNSEEN.values()], "target": target, "backend": "emulate"}
        out, vjp = splat.attention_vjp(q, k, v, splat.full(), **options)
        return out, *vjp(dout)

    check(unseen, results)


@pytest.mark.parametrize(
    ("method", "target", "dtype", "options"),
    [
        ("kernel_attention", "sm_90a", "float16", {}),
        ("attention", "sm80", "float16", {}),
        ("kernel_attention", "simt", "float32", {"feature_map": "favor"}),
    ],
)
def test_flurkas_are_too(method, target, dtype, options, unseen):
    q, k, v, dout = (rows(dtype, seq) for seq in (5, KEYS, KEYS, 5))
    given = [q, k, v]
    if method != "kernel_attention":
        given.append(np.random.default_rng(1).standard_normal((8, KEYS)).astype(dtype))
    if options:
        options = {**options, "omega": np.random.default_rng(2).standard_normal((8, 8)).astype(np.float32)}

    def results():
        more = {**options, "kv_lengths": [*UNSEEN.values()], "target": target, "backend": "emulate"}
        out, vjp = getattr(flurka_numba, f"{method}_vjp")(*given, **more)
        return out, *(one for one in vjp(dout) if one is not None)

    check(unseen, results)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        (flurka_numba.attention, {}),
        (flurka_numba.low_rank_attention, {}),
        (flurka_numba.kernel_attention, {"feature_map": "favor", "omega": np.eye(8, dtype=np.float32)}),
    ],
)
def test_flurkas_are_too_on_hopper(method, options, unseen):
    """Stages that its gradients do not have."""
    proj = () if "omega" in options else (np.ones((8, KEYS), np.float16) / KEYS,)
    given = (*(rows("float16", seq) for seq in (5, KEYS, KEYS)), *proj)
    options = {**options, "kv_lengths": [*UNSEEN.values()], "target": "sm_90a", "backend": "emulate"}
    check(unseen, lambda: (method(*given, **options),))
