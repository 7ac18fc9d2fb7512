"""Run a case through the public functions and compare it with the oracle under the one tolerance rule."""

import numpy as np

from flurka_numba.checks import ARRAYS
from tests.flurka.error_bound import assert_close, tolerance

PIECES = 2.0**-16  # of a number is lost where it goes to tensor cores in two pieces
SLOTS = 2.0**-8  # and of slots that become keys of attention, and of the gradients of slots


def operand_of(case, *, gradients=False):
    """The roundoff of what target sm80 multiplies."""
    rounds = case.method == "low_rank" or (case.method == "flurka" and gradients)
    return SLOTS if rounds and case.dtype == "bfloat16" else PIECES


def check_forward(case, *, operand=0.0, **options):
    """Raise AssertionError unless out agrees; give the largest share of the allowed error that was used."""
    arrays = case.arrays()
    before = {name: x.copy() for name, x in arrays.items()}
    got = case.run(arrays, **options)
    wanted, _ = case.wanted_vjp(arrays)
    allowed, _ = tolerance(case.call(arrays), case.dtype, operand=operand)
    assert got.dtype == arrays["q"].dtype
    _check_unchanged(arrays, before)
    return assert_close(got, wanted, allowed)


def check_gradients(case, *, operand=0.0, operand_back=None, frozen=(), **options):
    """Raise AssertionError unless out and all gradients agree, and those of frozen and absent arguments are None.

    operand_back: that of the gradients, where it is another.
    """
    arrays, dout = case.arrays(), case.dout()
    before = {name: x.copy() for name, x in arrays.items()}
    got, vjp = case.run_vjp(arrays, frozen=frozen, **options)
    found = vjp(dout)
    wanted, wanted_vjp = case.wanted_vjp(arrays)
    allowed, allowed_vjp = tolerance(case.call(arrays), case.dtype, operand=operand)
    if operand_back not in (None, operand):
        _, allowed_vjp = tolerance(case.call(arrays), case.dtype, operand=operand_back)
    used = [assert_close(got, wanted, allowed)]
    assert len(found) == len(ARRAYS)
    gradients = zip(ARRAYS, found, wanted_vjp(dout), allowed_vjp(dout), strict=True)
    for name, gradient, right, bound in gradients:
        if name in frozen or name not in arrays:
            assert gradient is None, f"d{name}: wanted None, got {gradient!r}"
            continue
        assert gradient.dtype == arrays[name].dtype, f"d{name}: got {gradient.dtype}"
        used.append(assert_close(gradient, right, bound, name=f"d{name}"))
    _check_unchanged(arrays, before)
    return max(used)


def _check_unchanged(arrays, before):
    for name, x in arrays.items():
        assert np.array_equal(x, before[name], equal_nan=x.dtype.kind == "f"), f"{name} was written to"
