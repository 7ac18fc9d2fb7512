"""Queries that one stage makes from a layer's input and uses, on the emulator; on a GPU: gpu/test_forward.py."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flurka_numba import FlurkaLayer
from flurka_numba.gpu.plan import makes_queries
from splat_numba.emulator import machine
from tests.flurka.layer_queries import USUAL, WAYS, check
from tests.flurka.targets.sm90.test_build import problem
from tests.profiles import draws


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_each_way(changes):
    check(USUAL.but(**changes), backend="emulate")


@settings(max_examples=draws(8))
@given(st.data())
def test_any_sizes(data):
    head_dim = data.draw(st.sampled_from([32, 64, 128]))
    case = USUAL.but(
        head_dim=head_dim,
        value_dim=head_dim,
        heads=128 // head_dim * data.draw(st.integers(1, 2)),
        batch=data.draw(st.sampled_from([None, 1, 2])),
        seq_q=data.draw(st.integers(1, 300)),
        seq_kv=data.draw(st.integers(1, 80)),
        dtype=data.draw(st.sampled_from(["float16", "bfloat16"])),
        feature_map=data.draw(st.sampled_from(["elu", "relu", "softplus", "corners"])),
        seed=data.draw(st.integers(0, 99)),
    )
    check(case, backend="emulate")


def make_layer(model_dim, heads, dtype, seq=20, rank=6):
    rng = np.random.default_rng(0)
    shapes = [(model_dim, model_dim)] * 4 + [(rank, seq)] * 2
    arrays = [(rng.standard_normal(shape) * shape[-1] ** -0.5).astype(dtype) for shape in shapes]
    return FlurkaLayer(*arrays, heads=heads), rng.standard_normal((2, seq, model_dim)).astype(dtype)


@pytest.mark.parametrize(
    ("model_dim", "heads", "last"),
    [(128, 2, "project_apply"), (192, 3, "apply"), (160, 2, "apply")],
    ids=["whole tiles", "half a tile", "heads of 80"],
)
def test_a_layer_takes_the_stage_where_heads_fill_its_tiles(model_dim, heads, last, monkeypatch):
    layer, x = make_layer(model_dim, heads, np.float16)
    ran, launch = [], machine.launch
    monkeypatch.setattr(machine, "launch", lambda *a, **k: (ran.append(a[2].name), launch(*a, **k)))
    out = layer(x, backend="emulate")
    assert ran == ["accumulate", "images", last]
    np.testing.assert_allclose(out.astype(np.float64), layer(x).astype(np.float64), atol=0.02)


def test_what_has_no_such_stage():
    usual = problem("kernel", seq_kv=256)
    assert makes_queries(usual, 1024)
    assert not makes_queries(usual, 1020)  # a row ends within 16 bytes
    others = (
        problem("flurka"),
        problem("kernel", dtype="float32"),
        problem("kernel", phi="favor"),
        problem("kernel", head_dim=48, value_dim=48),
        problem("kernel", value_dim=32),
        problem("kernel", heads=15),
    )
    assert not any(makes_queries(one, 1024) for one in others)
