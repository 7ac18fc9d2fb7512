"""Gradients from a call to the launches of its stages, with a driver that only notes what it is asked: no GPU."""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import gc
import weakref

import numpy as np
import pytest

import flurka_numba
from flurka_numba.gpu import vjp as gpu_vjp
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.flurka.gpu.fake_stages import fake, fresh, strides_of
from tests.flurka.gpu.test_call import (
    BATCH,
    DIM,
    HEADS,
    PLACES,
    RANK,
    ROW,
    SEQ_KV,
    SEQ_Q,
    map_places,
    operands,
    tokens,
)  # fmt: skip
from tests.runtime.fake_cuda import GpuMemory

FORWARD = ["accumulate", "images", "apply"]
BACKWARD = ["query_gradients", "images", "gradients"]


def address(array):
    return array.__cuda_array_interface__["data"][0]


def run(frozen=(), **given):
    return flurka_numba.kernel_attention_vjp(**given, backend="cuda", frozen=frozen)


def test_the_launches_of_kernel_attention(fake, fresh):
    out, vjp = run(**operands("kernel"))
    keys, images, apply = fake.launches
    assert [one.stage for one in fake.launches] == FORWARD
    assert (keys.k, keys.v, keys.rows, keys.kv_lengths) == (PLACES["k"], PLACES["v"], SEQ_KV, 0)
    assert (keys.k_row, keys.v_batch) == (ROW, SEQ_KV * ROW)
    assert images.shares == keys.shares
    assert (apply.q, apply.states) == (PLACES["q"], images.states)
    assert out.shape == (BATCH, HEADS, SEQ_Q, DIM)
    dout = tokens("q", SEQ_Q, place=9 << 28)
    dq, dk, dv, *rest = vjp(dout)
    of_queries, dimages, of_slots = fake.launches[3:]
    assert [one.stage for one in fake.launches[3:]] == BACKWARD
    assert rest == [None, None]
    assert (of_queries.q, of_queries.dout, of_queries.dq) == (PLACES["q"], 9 << 28, address(dq))
    assert (of_queries.states, of_queries.turned) == (images.states, images.turned)
    assert (of_queries.q_row, of_queries.dout_batch) == (ROW, SEQ_Q * ROW)
    assert dimages.shares == of_queries.shares
    assert (of_slots.states, of_slots.turned) == (dimages.states, dimages.turned)
    assert (of_slots.k, of_slots.v, of_slots.dk, of_slots.dv) == (PLACES["k"], PLACES["v"], address(dk), address(dv))
    assert [one.shape for one in (dq, dk, dv)] == [
        (BATCH, HEADS, SEQ_Q, DIM), (BATCH, HEADS, SEQ_KV, DIM), (BATCH, HEADS, SEQ_KV, DIM),
    ]  # fmt: skip


def test_a_repeated_call_compiles_nothing(fake, fresh):
    for _ in range(2):
        _, vjp = run(**operands("kernel"))
        vjp(tokens("q", SEQ_Q, place=9 << 28))
    assert len(fake.launches) == 2 * len(FORWARD + BACKWARD)
    assert len(fake.planned) == len(FORWARD + BACKWARD)


def test_frozen_keys_and_values_end_after_the_queries(fake, fresh):
    _, vjp = run(frozen=("k", "v"), **operands("kernel"))
    dq, dk, dv, *_ = vjp(tokens("q", SEQ_Q, place=9 << 28))
    assert [one.stage for one in fake.launches] == [*FORWARD, "query_gradients"]
    assert dq is not None
    assert (dk, dv) == (None, None)


def test_key_lengths_reach_the_stages_that_read_keys(fake, fresh):
    _, vjp = run(**operands("kernel"), kv_lengths=np.array([1000, 3]))
    vjp(tokens("q", SEQ_Q, place=9 << 28))
    lengths = {one.kv_lengths for one in (fake.launches[0], fake.launches[-1])}
    (place,) = lengths
    assert np.frombuffer(fake.memory[place], np.int32)[:2].tolist() == [1000, 3]


def test_misaligned_queries_are_copied_first(fake, fresh):
    run(**operands("kernel", q=PLACES["q"] + 2))
    assert [one.source for one in fake.copies] == [PLACES["q"] + 2]
    assert fake.launches[-1].q == fake.copies[0].target


def test_what_is_refused(fake, fresh):
    _, vjp = run(**operands("kernel"))
    with pytest.raises(ArgumentError, match=r"dout wanted of shape"):
        vjp(tokens("q", SEQ_Q + 1))


OF_SLOTS = [*BACKWARD, "gradients"]  # of float16: measured, then written
TO_TOKENS = ["token_gradients", "projection_gradients"]


def flurka(frozen=(), **places):
    return flurka_numba.attention_vjp(**operands(**places), backend="cuda", frozen=frozen)


@pytest.fixture
def sliced(monkeypatch):
    """The stub's arrays can be indexed with None and ..., unlike Numba's, for which these gradients are composed."""
    monkeypatch.setattr(gpu_vjp, "_products_are_at_hand", lambda *_: True)


@pytest.mark.usefixtures("sliced")
def test_the_launches_of_flurka(fake, fresh):
    out, vjp = flurka()
    assert [one.stage for one in fake.launches] == ["compress", "collect", *FORWARD]
    compress, collect, keys, images, _ = fake.launches
    assert compress.bounds == collect.bounds
    assert (keys.k, keys.v, keys.rows) == (collect.k_slots, collect.v_slots, RANK)
    assert collect.slot_scales == keys.slot_scales == images.slot_scales
    assert out.shape == (BATCH, HEADS, SEQ_Q, DIM)
    before = len(fake.maps)
    dq, dk, dv, dproj_k, dproj_v = vjp(tokens("q", SEQ_Q, place=9 << 28))
    assert [one.stage for one in fake.launches[5:]] == [*OF_SLOTS, *TO_TOKENS]
    of_queries, _, measure, of_slots, of_tokens, of_projections = fake.launches[5:]
    assert collect.slot_scales == measure.slot_scales == of_slots.slot_scales
    assert measure.gradient_tops == of_slots.gradient_tops
    assert of_slots.gradient_scales == of_tokens.gradient_scales == of_projections.gradient_scales
    assert of_queries.dq == address(dq)
    assert (of_tokens.dk, of_tokens.dv) == (address(dk), address(dv))
    assert (of_projections.dproj_k, of_projections.dproj_v) == (address(dproj_k), address(dproj_v))
    slots = [of_slots.dk, of_slots.dv, of_slots.dk_spread, of_slots.dv_spread]
    assert sorted(map_places(fake)[before:]) == sorted(
        [*slots, *(PLACES[f"{one}{x}"] for one in ("", "proj_") for x in "kv")]
    )
    assert dk.shape == (BATCH, HEADS, SEQ_KV, DIM)
    assert dproj_k.shape == (RANK, SEQ_KV)


@pytest.mark.usefixtures("sliced")
def test_a_repeated_vjp_of_flurka_makes_maps_of_fresh_arrays_alone(fake, fresh):
    _, vjp = flurka()
    vjp(tokens("q", SEQ_Q, place=9 << 28))
    before, planned = len(fake.maps), len(fake.planned)
    vjp(tokens("q", SEQ_Q, place=9 << 28))
    assert len(fake.maps) == before + 8  # scratch memory is elsewhere, so that all of a schedule's are made anew
    assert len(fake.planned) == planned


@pytest.mark.parametrize(
    ("frozen", "stages"),
    [
        (("k", "v"), [*OF_SLOTS, "projection_gradients"]),
        (("proj_k", "proj_v"), [*OF_SLOTS, "token_gradients"]),
        (("k", "v", "proj_k", "proj_v"), BACKWARD[:1]),
        (("k", "proj_k"), [*OF_SLOTS, *TO_TOKENS]),
    ],
)
@pytest.mark.usefixtures("sliced")
def test_what_frozen_arguments_spare(fake, fresh, frozen, stages):
    _, vjp = flurka(frozen)
    found = dict(zip(("q", "k", "v", "proj_k", "proj_v"), vjp(tokens("q", SEQ_Q, place=9 << 28)), strict=True))
    assert [one.stage for one in fake.launches[5:]] == stages
    assert {name for name, one in found.items() if one is None} == set(frozen)
    if frozen == ("k", "proj_k"):
        of_tokens, of_projections = fake.launches[-2:]
        assert (of_tokens.items_k, of_tokens.dk, of_projections.tiles_k, of_projections.dproj_k) == (0, 0, 0, 0)


@pytest.mark.usefixtures("sliced")
def test_projections_that_cannot_be_read_in_place_are_copied_for_their_stage(fake, fresh):
    _, vjp = flurka(proj_k=PLACES["proj_k"] + 2)
    vjp(tokens("q", SEQ_Q, place=9 << 28))
    assert [one.source for one in fake.copies] == [PLACES["proj_k"] + 2] * 2  # for compress, then for token_gradients
    assert fake.copies[1].target in map_places(fake)
    assert PLACES["proj_k"] + 2 not in map_places(fake)


def test_a_dout_that_cannot_be_read_in_place_is_copied(fake, fresh):
    _, vjp = run(**operands("kernel"))
    vjp(tokens("q", SEQ_Q, place=(9 << 28) + 2))
    assert [one.source for one in fake.copies] == [(9 << 28) + 2]
    assert fake.launches[3].dout == fake.copies[0].target


def test_out_is_written_in_place_or_copied_to_on_the_stream(fake, fresh):
    out = tokens("out", SEQ_Q)
    assert run(**operands("kernel"), out=out)[0] is out
    assert not fake.copies
    assert (fake.launches[-1].out, fake.launches[-1].out_row) == (PLACES["out"], ROW)
    out = tokens("out", SEQ_Q, place=PLACES["out"] + 2)
    assert run(**operands("kernel"), out=out)[0] is out
    (copy,) = fake.copies
    assert (copy.target, copy.source) == (PLACES["out"] + 2, fake.launches[-1].out)
    assert strides_of(copy, "target") == (SEQ_Q * ROW, 2 * DIM, ROW, 2)


def test_a_call_of_other_strides_or_dtype_is_another(fake, fresh):
    plain = operands("kernel")
    for _ in range(2):
        _, vjp = run(**plain)
        q = GpuMemory((BATCH, HEADS, SEQ_Q, DIM), pointer=PLACES["q"])
        run(**(plain | {"q": q}))
        vjp(GpuMemory((BATCH, HEADS, SEQ_Q, DIM), pointer=9 << 28))
        assert [one.q_row for one in fake.launches if one.stage == "apply"][-2:] == [ROW, 2 * DIM]
        assert fake.launches[-3].dout_row == 2 * DIM
        with pytest.raises(ArgumentTypeError, match=r"^v wanted as float16 as q is, got float32"):
            run(**(plain | {"v": GpuMemory((BATCH, HEADS, SEQ_KV, DIM), "float32", pointer=1 << 28)}))
        with pytest.raises(ArgumentTypeError, match=r"^dout wanted as float16 as q is, got float32"):
            vjp(GpuMemory((BATCH, HEADS, SEQ_Q, DIM), "float32", pointer=9 << 28))


@pytest.mark.usefixtures("sliced")
def test_nothing_remembers_arrays(fake, fresh):
    given = operands()
    out, vjp = flurka_numba.attention_vjp(**given, backend="cuda")
    dout = tokens("q", SEQ_Q, place=9 << 28)
    results = vjp(dout)
    held = [weakref.ref(one) for one in (*given.values(), out, dout, *results, *fresh)]
    fresh.clear()
    del results, dout, out
    gc.collect()
    assert sum(one() is not None for one in held) == len(given) + 1  # operands; for the next gradients: slots, states
    given.clear()
    del vjp
    gc.collect()
    assert not [one() for one in held if one() is not None]
