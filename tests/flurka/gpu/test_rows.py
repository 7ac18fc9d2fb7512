"""Calls whose arrays are rows with all heads side by side, as a layer makes them: no GPU, no kernel."""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import numpy as np
import pytest

from flurka_numba.gpu.call import attend
from flurka_numba.problem import Call
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.flurka.gpu.fake_stages import fake, fresh
from tests.flurka.gpu.test_call import BATCH, DIM, HEADS, PLACES, RANK, SEQ_Q, operands, run, tokens
from tests.runtime.fake_cuda import GpuMemory

MODEL_DIM = HEADS * DIM


class Rows(GpuMemory):
    """An array with the views that split() makes, which are counted."""

    views = 0

    def reshape(self, shape):
        Rows.views += 1
        _, seq, heads, dim = shape
        dtype, place = self.facts()
        row = dtype.itemsize * heads * dim
        return Rows(shape, dtype, place, (seq * row, row, row // heads, dtype.itemsize))

    def swapaxes(self, a, b):
        assert (a, b) == (-2, -3)
        batch, seq, heads, dim = self.shape
        dtype, place = self.facts()
        row = dtype.itemsize * heads * dim
        return Rows((batch, heads, seq, dim), dtype, place, (seq * row, row // heads, row, dtype.itemsize))

    def facts(self):
        facts = self.__cuda_array_interface__
        return np.dtype(facts["typestr"]), facts["data"][0]


def rows(name, seq, dtype="float16", place=None):
    return Rows((BATCH, seq, MODEL_DIM), dtype, place or PLACES[name])


def call(heads=HEADS, **changed):
    given = {"q": rows("q", SEQ_Q), "k": rows("k", RANK), "v": rows("v", RANK), "out": rows("out", SEQ_Q)}
    return Call("kernel", **(given | changed), feature_map="elu", heads=heads)


def test_the_launches_are_those_of_a_call_with_views(fake, fresh):
    given = call()
    assert attend(given) is given.out
    views = {name: tokens(name, SEQ_Q if name in ("q", "out") else RANK) for name in ("q", "k", "v", "out")}
    run("kernel", **views)
    half = len(fake.launches) // 2
    between = ("parts", "shares", "states", "turned", "counters")  # memory of a call's own
    found, wanted = (
        [{name: one for name, one in vars(launch).items() if name not in between} for launch in launches]
        for launches in (fake.launches[:half], fake.launches[half:])
    )
    assert found == wanted


def test_a_repeated_call_makes_no_views(fake, fresh):
    attend(call())
    planned, made = len(fake.planned), Rows.views
    attend(call(q=rows("q", SEQ_Q, place=99 << 28)))
    assert (len(fake.planned), Rows.views) == (planned, made)
    assert fake.launches[-1].q == 99 << 28


def test_another_number_of_heads_is_another_call(fake, fresh):
    for _ in range(2):
        for heads in (HEADS, 2 * HEADS):
            attend(call(heads))
            assert fake.launches[-1].q_head == 2 * MODEL_DIM // heads


@pytest.mark.usefixtures("fresh")
def test_what_does_not_fit_is_refused_at_every_call(fake):
    attend(call())
    for _ in range(2):
        with pytest.raises(ArgumentTypeError, match=r"^v wanted as float16 as q is, got float32"):
            attend(call(v=rows("v", RANK, "float32")))
        with pytest.raises(ArgumentError, match=r"^v wanted .* to fit"):
            attend(call(v=rows("v", RANK + 1)))
        with pytest.raises(ArgumentError, match=r"^out wanted apart from the inputs, got memory that q uses"):
            attend(call(out=rows("q", SEQ_Q)))
