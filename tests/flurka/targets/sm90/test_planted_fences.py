"""Fences taken away from the texts of flurka_numba's stages: the emulator misses each of them."""

import pytest

from flurka_numba.gpu import plan
from splat_numba.emulator import machine
from tests.emulator.planted_fences import WithoutFences
from tests.flurka import layer_queries
from tests.flurka.targets.sm90.test_forward import USUAL

SMALL = USUAL.but(seq_q=20, seq_kv=40, rank=20, heads=1)
LENGTHS = {"batch": 2, "kv_lengths": (40, 30)}


def gradients_of(case):
    _, vjp = case.run_vjp(backend="emulate")
    vjp(case.dout())


def forward_of(case):
    case.run(backend="emulate")


def layer_of(case):
    layer_queries.check(case, backend="emulate")


# The texts that have fences, each once.
CALLS = {
    "gradients": (
        gradients_of, SMALL,
        {"compress", "apply", "query_gradients", "gradients", "token_gradients", "projection_gradients", "accumulate"},
    ),
    "gradients of wide heads": (
        gradients_of, SMALL.but(method="kernel", head_dim=72, value_dim=40, **LENGTHS), {"accumulate", "gradients"},
    ),
    "key lengths": (forward_of, SMALL.but(**LENGTHS), {"compress", "slot_state", "apply"}),
    "random features": (forward_of, SMALL.but(feature_map="favor", rows=16, rank=64), {"state", "apply"}),
    "a layer's queries": (layer_of, layer_queries.USUAL.but(seq_q=20), {"project_apply", "accumulate"}),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_every_fence_of_a_text_is_needed(name, monkeypatch):
    run, case, wanted = CALLS[name]
    monkeypatch.setattr(plan, "slot_shares", lambda *_: 2)  # else blocks share larger states only
    planted = WithoutFences()
    monkeypatch.setattr(machine, "launch", planted)
    run(case)
    # Steps after a first one that has a text of its own go on with accumulators that nobody else writes.
    assert planted.survivors == (["wgmma_fence of project_apply"] if "project_apply" in wanted else [])
    assert wanted <= planted.entries
