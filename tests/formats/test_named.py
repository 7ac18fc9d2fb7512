"""Integers with names: the values of plain ones, and texts that evaluate to them."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.formats.named import Named, is_named, namer, parts_of, symbols_in, unnamed
from splat_numba.gen.targets.cpu.bounds_text import render_number

VALUES = {"left": 7, "right": -3, "step": 5}
small = st.integers(-9, 9)


def leaf(name):
    return namer()(name, VALUES[name])


steps = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["+", "-", "r-"]), st.one_of(small, st.sampled_from(sorted(VALUES)))),
        st.tuples(st.just("*"), small),
        st.just(("neg", 0)),
    ),
    max_size=6,
)


def applied(start, done, number_of):
    value = number_of(start)
    for sign, other in done:
        operand = number_of(other) if isinstance(other, str) else other
        if sign == "neg":
            value = -value
        elif sign == "*":
            value = value * operand if other % 2 else operand * value
        else:
            value = value + operand if sign == "+" else value - operand if sign == "-" else operand - value
    return value


@given(st.sampled_from(sorted(VALUES)), steps)
def test_values_are_those_of_plain_integers_and_texts_evaluate_to_them(start, done):
    found, wanted = applied(start, done, leaf), applied(start, done, VALUES.get)
    assert found == wanted
    assert hash(found) == hash(wanted)
    assert repr(found) == repr(wanted)
    text = render_number(found)
    assert eval(text, {"__builtins__": {}}, VALUES) == wanted  # noqa: S307 - our own text
    assert eval(f"10 * {text}", {"__builtins__": {}}, VALUES) == 10 * wanted  # noqa: S307 - so sums have parentheses
    assert is_named(found) == any(name in text for name in VALUES)


@pytest.mark.parametrize("text", ["x // 2", "x % 4", "abs(x)", "x * x", "max(x, 9)", "int(x)", "x ** 2", "+x"])
def test_other_operations_give_plain_integers(text):
    found = eval(text, {"x": leaf("left")})  # noqa: S307 - of this file
    assert type(found) is int
    assert found == eval(text, {"x": 7})  # noqa: S307 - of this file


def test_what_cancels_is_plain():
    left = leaf("left")
    assert [type(one) for one in (left - left, left * 0, left + 1 - left)] == [int, int, int]


def test_floats_and_arrays_take_the_value():
    left = leaf("left")
    assert left + float("inf") == float("inf")
    assert 0.5 - left == -6.5
    assert (np.arange(3) * left + left).tolist() == [7, 14, 21]
    assert (left - np.arange(3)).dtype == np.int64


def test_copies_pickles_and_json():
    number = leaf("left") * 2 + 1
    for other in (copy.copy(number), copy.deepcopy(number), pickle.loads(pickle.dumps(number))):  # noqa: S301 - our own
        assert (other, parts_of(other)) == (15, parts_of(number))
        assert isinstance(other, Named)
    assert json.dumps(number) == "15"


def test_a_name_is_given_once_and_two_numbers_of_one_name_are_an_error():
    name = namer()
    first, second, third = name("left", 3), name("left", 3), name("n", 4)
    assert list(symbols_in([third, first + second, 9]).items()) == [("n", 4), ("left", 3), ("left_2", 3)]
    with pytest.raises(ValueError, match="one name for several numbers"):
        symbols_in([first, namer()("left", 8)])
    assert not is_named(unnamed("left", 3))
