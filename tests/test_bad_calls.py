"""Calls that nobody means: a result, or an error of ours that begins with an argument's name. Never a raw one."""

import contextlib
import inspect
import re
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flurka_numba
import splat_numba as splat
from splat_numba.signatures import strict
from tests import bad_calls

COMPILERS = ("splat_numba.runtime.cpu.code.compile_source", "splat_numba.pictures.axes._new_axes")  # or draw
MORE_NAMES = {"row", "pattern", "indices"}  # what messages of masks begin with, beside arguments


class Accepted(BaseException):
    """The arguments were taken, and a kernel would be compiled."""


@contextlib.contextmanager
def forbid():
    """Nothing is compiled: calls end where it would be."""
    with contextlib.ExitStack() as stack:
        for name in COMPILERS:
            stack.enter_context(mock.patch(name, side_effect=Accepted))
        yield


FUNCTIONS = {
    **bad_calls.patterns(), **bad_calls.masks(), **bad_calls.operators(), **bad_calls.flurka_functions(),
}  # fmt: skip
NAMES = MORE_NAMES.union(*FUNCTIONS.values())


def attempt(function, arguments):
    """Call it; AssertionError for an error whose message does not begin with the name of an argument."""
    try:
        with contextlib.suppress(Accepted):
            function(**arguments)
    except splat.SplatError as error:
        refused = error
    else:
        return
    first = re.match(r"\w*", str(refused))[0]
    assert first in NAMES, f"{type(refused).__name__}: {refused}"


def name_of(function):
    return getattr(function, "__qualname__", type(function).__name__)


@pytest.mark.parametrize("function", FUNCTIONS, ids=name_of)
def test_every_argument_of_a_wrong_kind_is_refused_by_name(function):
    with forbid():
        for name in FUNCTIONS[function]:
            for value in bad_calls.HOSTILE:
                attempt(function, {**FUNCTIONS[function], name: value})


@st.composite
def calls(draw):
    """A function, and its arguments with some of them replaced."""
    function = draw(st.sampled_from(list(FUNCTIONS)))
    good = FUNCTIONS[function]
    changed = draw(st.lists(st.sampled_from(list(good)), min_size=min(2, len(good)), max_size=3, unique=True))
    return function, {**good, **{name: draw(st.sampled_from(bad_calls.HOSTILE)) for name in changed}}


@settings(max_examples=max(settings.default.max_examples, 200))
@given(calls())
def test_several_wrong_arguments_are_refused_by_name(call):
    with forbid():
        attempt(*call)


STRICT = [
    one
    for one in FUNCTIONS
    if hasattr(one.__init__ if inspect.isclass(one) else one, "__wrapped__") and "<locals>" not in name_of(one)
]


@pytest.mark.parametrize("function", STRICT, ids=name_of)
def test_calls_that_do_not_fit_a_signature_are_refused_by_name(function):
    good = FUNCTIONS[function]
    first = next(iter(good))
    for places, options, named in (
        ((), {**good, "no_such_argument": 1}, {"no_such_argument"}),
        ((*good.values(),) * 9, {}, set(good)),
        ((good[first],), good, {first}),
        ((), {name: value for name, value in good.items() if name != first}, {first}),
    ):
        with pytest.raises(splat.SplatError) as caught:
            function(*places, **options)
        assert re.match(r"\w*", str(caught.value))[0] in named


@pytest.mark.parametrize("package", [splat, flurka_numba])
def test_every_public_function_is_called_so(package):
    functions = [one for name in package.__all__ if inspect.isfunction(one := getattr(package, name))]
    assert [one.__name__ for one in functions if inspect.signature(one).parameters and one not in FUNCTIONS] == []


def test_signatures_are_true():
    assert [*inspect.signature(splat.attention).parameters][:5] == ["q", "k", "v", "mask", "scale"]
    assert "kwargs" not in str(inspect.signature(flurka_numba.FlurkaLayer))


def test_an_error_from_within_is_left_alone():
    @strict()
    def fails(x):
        return len(x) + sum(x)

    with pytest.raises(TypeError, match=r"^object of type 'int' has no len\(\)"):
        fails(3)
