"""Patterns are small checked values: construction, combination, equality, repr."""

import copy
import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splat_numba
from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import patterns as p
from tests.formats.pattern_cases import closed_leaves, combined, open_leaves

NAMESPACE = {name: getattr(p, name) for name in p.__all__}


def test_the_package_has_every_constructor():
    assert set(p.__all__) <= set(splat_numba.__all__)
    assert {name for name in NAMESPACE if getattr(splat_numba, name) is not NAMESPACE[name]} == set()


FIXED = [
    p.documents((3, 1, 4)),
    p.neighborhood((4, 6), 3),
    p.neighborhood((2, 4, 6), (1, 3, 5), (1, 2, 1)),
    p.global_tokens((5, 2, 9)),
    p.global_tokens(()),
    p.window(3, 0).align_end() & (p.sinks(2) | p.causal()),
    ((p.window(1) & p.full()) | p.sinks(0)).align_end(),
    p.blocked(4, 0, 1),
    p.blocked(4, 2),
    p.random_blocks(8, 2, 2**64 - 1),
]


def all_patterns():
    return combined(st.one_of(closed_leaves, open_leaves, st.sampled_from(FIXED)), most=6)


@given(all_patterns())
def test_repr_evaluates_to_an_equal_pattern(pattern):
    again = eval(repr(pattern), NAMESPACE)  # noqa: S307  # the claim is about eval
    assert again == pattern
    assert hash(again) == hash(pattern)
    assert repr(again) == repr(pattern)
    assert isinstance(pattern, p.Pattern)


@given(all_patterns())
def test_patterns_copy_and_pickle(pattern):
    assert copy.deepcopy(pattern) == pattern
    assert pickle.loads(pickle.dumps(pattern)) == pattern  # noqa: S301  # our own bytes


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (p.window(512) | p.sinks(4), "window(512) | sinks(4)"),
        (p.window(4).align_end(), "window(4).align_end()"),
        (p.window(4, 0), "window(4, 0)"),
        (p.columns(6, 2), "columns(6, 2)"),
        (p.columns(6, 2, 3), "columns(6, 2, 3)"),
        (p.blocked(8), "blocked(8)"),
        (p.documents([2, 3]), "documents((2, 3))"),
        (p.neighborhood((4, 4), 3, 2), "neighborhood((4, 4), 3, 2)"),
        (p.longformer(256, 64), "window(256) | global_tokens(64)"),
        (p.bigbird(64), "blocked(64, 1, 1) | global_tokens(128) | random_blocks(64, 3, 0)"),
        (p.sparse_transformer_strided(128), "(window(128, 0) | strided(128)) & causal()"),
        (p.sparse_transformer_fixed(128, 8), "(blocked(128) | columns(128, 120, 8)) & causal()"),
        ((p.causal() & p.full()) | p.sinks(1), "(causal() & full()) | sinks(1)"),
    ],
)
def test_repr_reads_as_a_person_would_write_it(pattern, text):
    assert repr(pattern) == text


def test_equality_compares_descriptions_not_sets():
    assert p.window(2) == p.window(2, 2)
    assert p.global_tokens(2) != p.global_tokens([0, 1])
    assert p.dilated(0, 3) != p.window(0)
    assert (p.full() | p.causal()) | p.sinks(1) == p.full() | (p.causal() | p.sinks(1))
    assert p.full() | p.causal() != p.causal() | p.full()
    assert p.global_tokens([3, 1, 3]) == p.global_tokens((1, 3))


def test_aligning_twice_is_aligning_once():
    assert p.causal().align_end().align_end() == p.causal().align_end()


def test_numpy_integers_and_arrays_become_python_integers():
    pattern = p.documents(np.array([2, 3], np.int32)) | p.window(np.int64(4)) | p.global_tokens(np.array([1]))
    assert repr(pattern) == "documents((2, 3)) | window(4) | global_tokens((1,))"
    assert p.window(np.uint8(7)) == p.window(7)


def test_patterns_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        p.window(4).left = 5


def test_truth_value_is_refused_with_the_reason():
    with pytest.raises(PatternTypeError, match=r"Combine patterns with \| and &, not with or, and, not"):
        bool(p.causal())
    with pytest.raises(TypeError):
        p.causal() or p.full()


@pytest.mark.parametrize(
    ("other", "advice"),
    [
        (3, "got 3 of type int. Build it with the constructors."),
        (None, "got None of type NoneType. Build it with the constructors."),
        (np.ones((2, 2), bool), "of type ndarray. Write splat.ACSR.from_dense(mask)."),
        ("sinks(4)", "got 'sinks(4)' of type str. Write splat.parse('sinks(4)')."),
        (p.causal, "of type function. Call it: splat.causal(...)."),
    ],
    ids=["number", "None", "array", "text", "uncalled"],
)
def test_only_patterns_combine(other, advice):
    for combine in (lambda: p.causal() | other, lambda: p.causal() & other, lambda: other & p.causal()):
        with pytest.raises(PatternTypeError) as caught:
            combine()
        assert str(caught.value).startswith("pattern: wanted a Pattern or an ACSR beside ")
        assert str(caught.value).endswith(advice)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: p.documents([0, 4, 9]), "Write documents(np.diff(cu_seqlens))."),
        (lambda: p.documents(np.array([0, 4, 4])), "Write documents(np.diff(cu_seqlens))."),
        (lambda: p.documents([4, 0, 9]), "lengths[1]: wanted an integer >= 1, got 0. Give at least 1."),
        (lambda: p.documents([0]), "lengths[0]: wanted an integer >= 1, got 0. Give at least 1."),
        (lambda: p.documents(range(2**30)), "wanted at most 16777216 numbers, got more. Give a count or a period."),
        (lambda: p.window(10**5000), "<= 1099511627776, got an integer of 16610 bits. Give at most 1099511627776."),
        (
            lambda: p.window(size=3),
            "size wanted left out, because window has no such argument. There are: left, right.",
        ),
        (
            lambda: p.window(1, 2, 3),
            "right wanted as the last of window's arguments, got 3 by place. Leave out the others.",
        ),
        (p.window, "left wanted by window, got nothing. Give it: help(window) says what it is."),
        (lambda: p.bigbird(4, n_window=4), "as many before it as after it, got 4. Write 5 or 3."),
        (lambda: p.bigbird(4, n_window=0), "as many before it as after it, got 0. Write 1."),
    ],
)
def test_what_people_mean_is_in_the_message(make, message):
    with pytest.raises(PatternError) as caught:
        make()
    assert str(caught.value).endswith(message)


def test_an_array_of_another_framework_is_read():
    class Tensor:
        def __index__(self):
            raise TypeError("only integer tensors of a single element can be converted to an index")

        def __array__(self):
            return np.array([3, 1])

        def tolist(self):
            return [3, 1]

    assert p.documents(Tensor()) == p.documents([3, 1])
    assert p.global_tokens(Tensor()) == p.global_tokens([3, 1])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: p.window(-1), "left: wanted an integer >= 0, got -1. Give at least 0."),
        (lambda: p.window(1, -2), "right: wanted an integer >= 0, got -2. Give at least 0."),
        (lambda: p.dilated(1, 0), "step: wanted an integer >= 1, got 0. Give at least 1."),
        (lambda: p.strided(0), "step: wanted an integer >= 1, got 0. Give at least 1."),
        (lambda: p.blocked(0), "size: wanted an integer >= 1, got 0. Give at least 1."),
        (lambda: p.sinks(-1), "n: wanted an integer >= 0, got -1. Give at least 0."),
        (lambda: p.window(2**41), f"left: wanted an integer <= {2**40}, got {2**41}. Give at most {2**40}."),
        (lambda: p.documents((2, 0)), "lengths[1]: wanted an integer >= 1, got 0. Give at least 1."),
        (
            lambda: p.documents([]),
            "lengths: wanted at least one document, got none. Give the length of every document.",
        ),
        (
            lambda: p.columns(4, 3, 2),
            (
                "count: wanted start + count <= period, got 3 + 2 > 4. A stretch cannot run past its period: lower "
                "start or count, or join two columns(...) with |."
            ),
        ),
        (
            lambda: p.neighborhood((4, 4), 2),
            "kernel: wanted odd sizes, so that the query is in the middle, got (2, 2). Use k + 1 or k - 1.",
        ),
        (
            lambda: p.neighborhood((4,), 3),
            "shape: wanted 2 or 3 axes, got 1: (4,). For one axis use dilated(...).",
        ),
        (
            lambda: p.neighborhood((4, 4), (3, 3, 3)),
            (
                "kernel: wanted one number for each of the 2 axes of shape, got 3 numbers: (3, 3, 3). Give one per "
                "axis, or a single int for all."
            ),
        ),
        (lambda: p.global_tokens([1, -1]), "indices[1]: wanted an integer >= 0, got -1. Give at least 0."),
        (lambda: p.random_blocks(1, 1, -1), "seed: wanted an integer >= 0, got -1. Give at least 0."),
        (
            lambda: p.sparse_transformer_fixed(4, 5),
            "c: wanted at most l = 4 summary columns a block, got 5. Lower c or raise l.",
        ),
        (lambda: p.longformer(-1, 2), "width: wanted an integer >= 0, got -1. Give at least 0."),
        (lambda: p.bigbird(4, -1), "n_window: wanted an integer >= 0, got -1. Give at least 0."),
    ],
)
def test_impossible_values_are_refused(make, message):
    with pytest.raises(PatternError) as caught:
        make()
    assert str(caught.value) == message
    assert isinstance(caught.value, ValueError)
    assert not isinstance(caught.value, TypeError)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: p.window(2.0),
            "left: wanted an integer >= 0, got 2.0 of type float. Round it yourself, for example with int(...) or //.",
        ),
        (
            lambda: p.sinks(True),
            "n: wanted an integer >= 0, got True of type bool. True and False are not sizes; write 1 or 0.",
        ),
        (lambda: p.sinks("3"), "n: wanted an integer >= 0, got '3' of type str. Pass a Python or NumPy integer."),
        (
            lambda: p.documents(5),
            (
                "lengths: wanted a tuple, list or NumPy array of integers, got 5 of type int. Write (5,) if you mean "
                "one number."
            ),
        ),
        (
            lambda: p.documents(np.ones(2)),
            (
                "lengths: wanted a one-dimensional array of integers, got shape (2,) and dtype float64. Pass a tuple "
                "of ints, or convert the array first."
            ),
        ),
        (
            lambda: p.neighborhood((4, 4), 3.0),
            (
                "kernel: wanted an integer >= 1, got 3.0 of type float. Round it yourself, for example with int(...) "
                "or //."
            ),
        ),
    ],
)
def test_wrong_types_are_refused(make, message):
    with pytest.raises(PatternTypeError) as caught:
        make()
    assert str(caught.value) == message
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("value", [1.5, np.float32(1), True, np.bool_(1), None, "1", 1j, np.array([1]), [1]])
@pytest.mark.parametrize(
    "make", [p.sinks, p.prefix, p.strided, p.blocked, p.window, lambda x: p.window(1, [x]), lambda x: p.dilated(1, x)]
)
def test_every_size_refuses_what_is_not_an_integer(make, value):
    with pytest.raises(PatternTypeError):
        make(value)
