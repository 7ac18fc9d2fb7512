"""Gradients from a call to the launches of its stages, with a driver that only notes what it is asked: no GPU."""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import numpy as np
import pytest

import flurka_numba
from splat_numba.errors import ArgumentError
from tests.flurka.fake_stages import fake, fresh, moves
from tests.flurka.test_gpu_call import BATCH, DIM, HEADS, PLACES, ROW, SEQ_KV, SEQ_Q, operands, tokens

FORWARD = ["accumulate", "images", "apply"]
BACKWARD = ["gradients", "accumulate", "images", "gradients"]


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
    of_queries, queries, dimages, of_slots = fake.launches[3:]
    assert [one.stage for one in fake.launches[3:]] == BACKWARD
    assert rest == [None, None]
    assert (of_queries.q, of_queries.dout, of_queries.dq) == (PLACES["q"], 9 << 28, address(dq))
    assert (of_queries.states, of_queries.turned) == (images.states, images.turned)
    assert (queries.q, queries.dout, queries.row_weights) == (PLACES["q"], 9 << 28, of_queries.row_weights)
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
    assert [one.stage for one in fake.launches] == [*FORWARD, "gradients"]
    assert dq is not None
    assert (dk, dv) == (None, None)


def test_key_lengths_reach_the_stages_that_read_keys(fake, fresh):
    _, vjp = run(**operands("kernel"), kv_lengths=np.array([1000, 3]))
    vjp(tokens("q", SEQ_Q, place=9 << 28))
    lengths = {one.kv_lengths for one in (fake.launches[0], fake.launches[-1])}
    (place,) = lengths
    assert np.frombuffer(fake.memory[place], np.int32)[:2].tolist() == [1000, 3]
    assert fake.launches[4].kv_lengths == 0  # of the sums over queries


def test_misaligned_queries_are_copied_first(fake, fresh, moves):
    run(**operands("kernel", q=PLACES["q"] + 2))
    assert [call[2] for call in moves] == [PLACES["q"] + 2]
    assert fake.launches[-1].q == moves[0][0]


def test_what_is_refused(fake, fresh):
    _, vjp = run(**operands("kernel"))
    with pytest.raises(ArgumentError, match=r"dout wanted of shape"):
        vjp(tokens("q", SEQ_Q + 1))
