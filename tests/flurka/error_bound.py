"""The one tolerance rule: running error analysis of the oracle itself.

The oracle's text is run once on `Bounded` numbers: a float64 value, and the standard deviation of what a correct
kernel's value may be off. Every operation adds what its inputs' errors do to the result, and what rounding it in the
kernel's arithmetic costs: u for one operation; for a sum of n products in any order sqrt(n) u times the result and the
root of the sum of the products' squares; 8 u and the argument's own rounding for exp (sin and cos: 4 u, absolute).
What is allowed has two parts, which are kept apart (`Allowed`):

- *The result's own rounding* to 16 bits: half a unit in its last place, of the binade that the value or the largest
  number within its error is in. It is certain, so all of it may be used; it needs no room, and any share of it says
  nothing. One part for both made every exact result that lies halfway look like 99 % of the bound.
- *Deviations* of what was computed before, taken as independent: worst cases would allow gradients to be wrong in the
  second digit. So arrays must be random (many equal numbers round alike). A rounding is at most u and deviates by
  u / sqrt(3), but is counted as u: each deviation is 1.7 true ones. Of 10^9 normal numbers the farthest is 6.1 true
  deviations off, 3.5 of ours. Errors that depend on each other come on top: the oracle in float32, over a thousand
  cases, was up to 8 off, and 2 in most. `SIGMAS`, 16, is twice that. `assert_close` gives the share that was used,
  and test_error_bound.py has cases that use little and planted errors, of two units in the last place or one key of a
  hundred, that use more than all.

Where a comparison could go either way, the bound has the difference of the two cases. An infinite bound promises
nothing: a divisor within its error of 0.
"""

# ruff: noqa: ARG001, ARG005 - the rules of all operations have the same arguments

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

from flurka_numba import reference

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24}
# The dtype of the results: relative roundoff, and the largest absolute error where a number underflows.
ROUNDING = {
    "float16": (2.0**-11, 2.0**-24),
    "bfloat16": (2.0**-8, 2.0**-126),
    "float32": (2.0**-24, 2.0**-126),
    "float64": (2.0**-53, 2.0**-1022),
}
TINY = 2.0**-120  # a power below it may be 0 in float32
SIGMAS = 16.0


class Doubtful:
    """A comparison: what the values say, and where errors could change that."""

    def __init__(self, value, unsure):
        self.value, self.unsure = value, unsure

    def __array_function__(self, function, types, args, kwargs):
        return HANDLERS[function](*args, **kwargs)


class Bounded(NDArrayOperatorsMixin):
    """Values with deviations. unit: roundoff of the arithmetic; operand: of what is rounded before it is multiplied."""

    def __init__(self, value, error, unit, operand=0.0):
        self.value, self.unit, self.operand = np.asarray(value, np.float64), unit, operand
        self.error = np.broadcast_to(np.asarray(error, np.float64), self.value.shape)

    shape = property(lambda self: self.value.shape)
    ndim = property(lambda self: self.value.ndim)

    def __getitem__(self, index):
        return self.like(self.value[index], self.error[index])

    def like(self, value, error):
        return Bounded(value, error, self.unit, self.operand)

    def __array_ufunc__(self, ufunc, method, *inputs, **kwargs):
        assert method == "__call__"
        assert not kwargs
        values, errors = zip(*(split(x) for x in inputs), strict=True)
        with np.errstate(all="ignore"):
            if ufunc in COMPARISONS:
                reach = SIGMAS * root(*errors)
                return Doubtful(ufunc(*values), (np.abs(values[0] - values[1]) <= reach) & (reach > 0))
            value = ufunc(*values)
            rounding = 0.0 if ufunc in EXACT else self.unit * np.nan_to_num(np.abs(value), posinf=0.0)
            return self.like(value, root(RULES[ufunc](self, value, values, errors), rounding))

    def __array_function__(self, function, types, args, kwargs):
        return HANDLERS[function](*args, **kwargs)


def split(x):
    return (x.value, x.error) if isinstance(x, Bounded) else (np.asarray(x, np.float64), np.zeros(np.shape(x)))


def root(*errors):
    return np.sqrt(sum(np.square(e) for e in errors))


def product_rule(self, value, values, errors):
    (a, b), (ea, eb) = values, errors
    ea, eb = (root(e, self.operand * np.abs(x) * (e > 0)) for x, e in ((a, ea), (b, eb)))  # inputs need no rounding
    passed = (a * a) @ (eb * eb) + (ea * ea) @ (b * b) + (ea * ea) @ (eb * eb)
    summed = self.unit * np.sqrt(a.shape[-1] + 2) * root(value, np.sqrt((a * a) @ (b * b)))
    return root(np.sqrt(passed), summed)


def power_rule(self, value, values, errors):
    size, power = np.abs(values[0]), values[1]
    return root((size + errors[0]) ** power - size**power, power * self.unit * value)


def exp_rule(self, value, values, errors):
    finite = np.where(np.isfinite(values[0]), np.abs(values[0]), 0.0)
    relative = SIGMAS * root(errors[0], self.unit * (8.0 + finite))
    return value * np.expm1(np.minimum(relative, 50.0)) / SIGMAS + TINY


def divide_rule(self, value, values, errors):
    room = np.maximum(np.abs(values[1]) - SIGMAS * errors[1], 0.0)
    moved = root(errors[0], value * errors[1])
    return np.where(moved == 0.0, 0.0, moved / room)


def sqrt_rule(self, value, values, errors):
    low, high = np.sqrt(np.maximum(values[0] - errors[0], 0.0)), np.sqrt(values[0] + errors[0])
    return np.maximum(high - value, value - low)


def log_rule(self, value, values, errors):
    return root(errors[0] / np.maximum(values[0] - SIGMAS * errors[0], 0.0), 8 * self.unit * (1.0 + np.abs(value)))


def angle_rule(self, value, values, errors):
    return np.minimum(root(errors[0], self.unit * (4.0 + np.abs(values[0]))), 2.0)


RULES: dict[Any, Any] = {
    np.add: lambda self, r, v, e: root(*e),
    np.subtract: lambda self, r, v, e: root(*e),
    np.multiply: lambda self, r, v, e: root(v[0] * e[1], v[1] * e[0], e[0] * e[1]),
    np.negative: lambda self, r, v, e: e[0],
    np.absolute: lambda self, r, v, e: e[0],
    np.maximum: lambda self, r, v, e: np.maximum(e[0], e[1]),
    np.minimum: lambda self, r, v, e: np.maximum(e[0], e[1]),
    np.matmul: product_rule,
    np.power: power_rule,
    np.exp: exp_rule,
    np.divide: divide_rule,
    np.sqrt: sqrt_rule,
    np.log: log_rule,
    np.sin: angle_rule,
    np.cos: angle_rule,
}
EXACT = {np.negative, np.absolute, np.maximum, np.minimum}
COMPARISONS = {np.less, np.less_equal, np.greater, np.greater_equal, np.equal, np.not_equal}


def one_of(*things):
    return next(x for x in things if isinstance(x, Bounded))


def where(kept, a, b):
    (va, ea), (vb, eb) = split(a), split(b)
    like = one_of(a, b, Bounded(0.0, 0.0, UNIT["float32"]))
    if not isinstance(kept, Doubtful):
        return like.like(np.where(kept, va, vb), np.where(kept, ea, eb))
    either = np.where(kept.unsure, np.abs(va - vb) + root(ea, eb), 0.0)
    return like.like(np.where(kept.value, va, vb), root(np.where(kept.value, ea, eb), either))


def largest(x, axis, keepdims, initial=None):
    start = {} if initial is None else {"initial": initial}
    value = np.max(x.value, axis=axis, keepdims=keepdims, **start)
    return x.like(value, np.max(x.error, axis=axis, keepdims=keepdims, initial=0.0))


def total(x, axis, keepdims=False):
    value = np.sum(x.value, axis=axis, keepdims=keepdims)
    squares = np.sum(np.square(x.error), axis=axis, keepdims=keepdims)
    size = np.sqrt(np.sum(np.square(x.value), axis=axis, keepdims=keepdims))
    return x.like(value, root(np.sqrt(squares), x.unit * np.sqrt(x.shape[axis]) * root(value, size)))


def concatenate(parts, axis):
    values, errors = zip(*(split(x) for x in parts), strict=True)
    return one_of(*parts).like(np.concatenate(values, axis), np.concatenate(errors, axis))


HANDLERS: dict[Any, Any] = {
    np.where: where,
    np.max: largest,
    np.sum: total,
    np.concatenate: concatenate,
    np.swapaxes: lambda x, a, b: x.like(np.swapaxes(x.value, a, b), np.swapaxes(x.error, a, b)),
    np.reshape: lambda x, shape: x.like(np.reshape(x.value, shape), np.reshape(x.error, shape)),
    np.shape: lambda x: x.shape,
    np.ndim: lambda x: x.ndim,
}


def tolerance(call, dtype, *, operand=0.0):
    """The oracle on Bounded numbers: (what is Allowed of out, function from dout to those of the gradients).

    call: a `flurka_numba.problem.Call`. dtype: of the results, by name. operand: the relative roundoff with which a
    kernel rounds what it computed before it multiplies it.
    """
    unit = UNIT["float64" if dtype == "float64" else "float32"]
    exact = reference.given(call)
    arrays = {name: Bounded(x, 0.0, unit, operand) for name, x in exact.arrays.items()}
    with np.errstate(all="ignore"):
        out, pull = reference.run(replace(exact, arrays=arrays))

    def gradients(dout):
        with np.errstate(all="ignore"):
            return tuple(None if g is None else _rounded(g, dtype) for g in pull(np.asarray(dout, np.float64)))

    return _rounded(out, dtype), gradients


@dataclass(frozen=True, slots=True)
class Allowed:
    """Of every element: SIGMAS deviations, and its own rounding. Infinite ones promise nothing."""

    deviations: Any
    rounding: Any

    shape = property(lambda self: self.deviations.shape)

    def isfinite(self):
        """Whether all of them promise something."""
        return bool(np.isfinite(self.deviations).all())


def _rounded(x, dtype):
    value, error = split(x)
    relative, tiny = ROUNDING[dtype]
    with np.errstate(all="ignore"):
        deviations = np.nan_to_num(SIGMAS * error, nan=np.inf, posinf=np.inf)
        largest = np.nan_to_num(np.abs(value) + deviations, nan=0.0, posinf=0.0)
        _, exponent = np.frexp(largest)
        binade = np.where(largest > 0.0, np.ldexp(1.0, exponent - 1), 0.0)  # up to twice that
        half_unit = relative * binade
    return Allowed(deviations, np.maximum(half_unit, tiny))


def assert_close(got, wanted, allowed, name="out"):
    """Raise AssertionError, with the worst place, unless got is within allowed of wanted; NaN and inf must agree. Gives
    the largest share of the deviations that was used.
    """
    got, wanted = np.asarray(got, np.float64), np.asarray(wanted, np.float64)
    assert got.shape == wanted.shape, f"{name}: wanted shape {wanted.shape}, got {got.shape}"
    with np.errstate(all="ignore"):
        error = np.where((got == wanted) | (np.isnan(got) & np.isnan(wanted)), 0.0, np.abs(got - wanted))
        beyond = np.maximum(error - allowed.rounding, 0.0)
        share = np.where(np.isnan(error), np.inf, np.where(beyond == 0.0, 0.0, beyond / allowed.deviations))
    if share.size and share.max() > 1.0:
        worst = tuple(int(i) for i in np.unravel_index(np.argmax(share), share.shape))
        bound = (allowed.rounding + allowed.deviations)[worst]
        raise AssertionError(
            f"{name}[{worst}]: wanted {wanted[worst]!r}, got {got[worst]!r}, allowed error {bound:.3g}; "
            f"{int((share > 1).sum())} of {share.size} are too far"
        )
    return float(share.max(initial=0.0))
