"""Feature maps phi: what turns a query or a compressed key into non-negative features.

Elementwise maps are formulas (FeatureMap); "favor" and "rfa" are products with random rows omega (RandomMap).
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.expressions import differentiate, evaluate, parse
from splat_numba.arguments.numbers import check_flag, check_number
from splat_numba.arguments.sizes import LARGEST_DIM, check_size
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.plain import kind, shown
from splat_numba.signatures import strict

# Where a user's map is tried. No round numbers, so that no sample meets the corner of a map such as maximum(x, 0.5).
SAMPLES = np.concatenate([-np.geomspace(1e-3, 10.007, 40)[::-1], np.geomspace(1e-3, 10.007, 40)])
SAMPLES.flags.writeable = False
LONGEST_NAME = 64  # it is part of a file's name
LARGEST_FEATURES = 65536


@dataclass(frozen=True, slots=True)
class FeatureMap:
    """An elementwise feature map, given twice: as a NumPy function and as the formula that kernels are made from.

    name: an identifier, which appears in kernels' names. function: of a float array, elementwise, >= 0. source: the
    same as a Python expression in x with exp, log, sqrt, maximum, + - * / ** and conditional expressions, such as
    "x + 1.0 if x > 0.0 else exp(x)". derivative: of source, in x and y = phi(x), such as "1.0 if x > 0.0 else y"; left
    out, it is found from source. eps_inside: phi itself keeps the denominator from 0, so that eps is not added to it.

    Both are tried on samples from -10 to 10 when the map is made. Raises ArgumentError where values are negative or not
    finite, where function, source and derivative disagree, and for what source may not have; ArgumentTypeError for
    types. Maps are equal if name, source and derivative are.
    """

    name: str
    function: Callable[[NDArray[Any]], NDArray[Any]] = field(compare=False, repr=False)
    source: str
    derivative: str | None = None
    eps_inside: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        _check_name(self)
        if not callable(self.function):
            raise ArgumentTypeError(
                f"function wanted as a NumPy function, got {kind(self.function)}. Give one, such as np.exp."
            )
        if self.derivative is not None and not isinstance(self.derivative, str):
            raise ArgumentTypeError(
                f"derivative wanted as text, got {kind(self.derivative)}. Write a formula in x and y, or leave it out."
            )
        check_flag("eps_inside", self.eps_inside)
        _check_values(self)
        _check_slopes(self)

    @property
    def derivative_source(self) -> str:
        """The derivative as an expression in x and y = phi(x): the given one, or the gradient of source."""
        return self.derivative or ast.unparse(differentiate(parse("source", self.source)))

    def values(self, x: Any) -> Any:
        """phi(x) by the formula, elementwise, with NumPy."""
        with np.errstate(all="ignore"):
            return _broadcast(evaluate(parse("source", self.source), {"x": x}), x)

    def slopes(self, x: Any, y: Any) -> Any:
        """phi'(x) by the formula, elementwise, with NumPy. y: phi(x)."""
        tree = parse("derivative", self.derivative_source, ("x", "y"))
        with np.errstate(all="ignore"):
            return _broadcast(evaluate(tree, {"x": x, "y": y}), x)


def _broadcast(values: Any, x: Any) -> Any:
    return np.full(np.shape(x), float(values)) if np.ndim(values) == 0 else values


FeatureMap.__init__ = strict()(FeatureMap.__init__)  # type: ignore[method-assign]  # the dataclass wrote it


class BuiltInMap(FeatureMap):
    """A map of the package's own, which may have a reserved name."""

    __slots__ = ()


def _check_name(phi: FeatureMap) -> None:
    name = phi.name
    if not isinstance(name, str) or not name.isidentifier() or not name.isascii():
        raise ArgumentError(f"name wanted as an identifier, got {shown(name)}. Use letters, digits and _ only.")
    if len(name) > LONGEST_NAME:
        raise ArgumentError(f"name wanted with at most {LONGEST_NAME} letters, got {len(name)}. Shorten it.")
    if name in RESERVED and not isinstance(phi, BuiltInMap):
        raise ArgumentError(
            f"name wanted other than {', '.join(RESERVED)}, the package's own maps, got {name!r}. Choose another."
        )


def _values_of(phi: FeatureMap) -> NDArray[Any]:
    """The function's values at the samples. Raises ArgumentError, ArgumentTypeError where there are none."""
    try:
        with np.errstate(all="ignore"):
            found = np.asarray(phi.function(SAMPLES.copy()))
    except Exception as error:
        raise ArgumentError(
            f"function of feature map {phi.name!r} wanted to take an array of float64, got {kind(error)}: {error}. Use "
            "NumPy functions of single numbers."
        ) from error
    if found.dtype.kind not in "fiub":
        raise ArgumentTypeError(
            f"function of feature map {phi.name!r} wanted with real values, got dtype {found.dtype}. Give float64."
        )
    return found


def _check_values(phi: FeatureMap) -> None:
    by_source, by_function = phi.values(SAMPLES), _values_of(phi)
    if by_function.shape != SAMPLES.shape:
        raise ArgumentError(
            f"function of feature map {phi.name!r} wanted elementwise, got shape {by_function.shape} for "
            f"{SAMPLES.shape}. Use NumPy functions of single numbers."
        )
    for name, values in (("function", by_function), ("source", by_source)):
        bad = ~(np.isfinite(values) & (values >= 0.0))
        if bad.any():
            raise ArgumentError(
                f"{name} of feature map {phi.name!r} wanted with finite values >= 0, because they are weights, got "
                f"{values[bad][0]:.6g} at x = {SAMPLES[bad][0]:.6g}. Use for example maximum(x, 0.0) or exp(x)."
            )
    apart = ~np.isclose(by_source, by_function, rtol=1e-6, atol=1e-12)
    if apart.any():
        raise ArgumentError(
            f"source of feature map {phi.name!r} wanted equal to function, got {by_source[apart][0]:.6g} for "
            f"{by_function[apart][0]:.6g} at x = {SAMPLES[apart][0]:.6g}. Correct one of them."
        )


def _check_slopes(phi: FeatureMap) -> None:
    """A derivative that the user gave, against the one found from source."""
    if phi.derivative is None:
        return
    tree = differentiate(parse("source", phi.source))
    with np.errstate(all="ignore"):
        wanted = _broadcast(evaluate(tree, {"x": SAMPLES}), SAMPLES)
    got = phi.slopes(SAMPLES, phi.values(SAMPLES))
    apart = ~np.isclose(got, wanted, rtol=1e-6, atol=1e-12)
    if apart.any():
        raise ArgumentError(
            f"derivative of feature map {phi.name!r} wanted as the gradient of source, {wanted[apart][0]:.6g} at x = "
            f"{SAMPLES[apart][0]:.6g}, got {got[apart][0]:.6g}. Correct it, or leave it out."
        )


@dataclass(frozen=True, slots=True)
class RandomMap:
    """A map by random rows omega (rows, head_dim). eps: unless given; per_row: features that a row of omega makes."""

    name: str
    eps: float
    per_row: int


RANDOM_MAPS = {"favor": RandomMap("favor", 1e-4, 1), "rfa": RandomMap("rfa", 1e-3, 2)}
ELU_EPS = 1e-6  # also that of users' maps
RELU_EPS = 1e-3
RESERVED = ("elu", "relu", *RANDOM_MAPS)


# Never elu(x) + 1 with an elu that rounds: below about -6 that is exactly 0 in bfloat16.
ELU = BuiltInMap(
    "elu",
    lambda x: np.where(x > 0.0, x + 1.0, np.exp(np.minimum(x, 0.0))),
    "x + 1.0 if x > 0.0 else exp(x)",
    "1.0 if x > 0.0 else y",
)


def relu(eps: float = RELU_EPS) -> FeatureMap:
    """max(x, 0) + eps: generalised attention. With eps = 0 a query without a feature in common with any key gives 0."""
    return BuiltInMap(
        "relu",
        lambda x: np.maximum(x, 0.0) + eps,
        f"maximum(x, 0.0) + {eps!r}",
        "1.0 if x > 0.0 else 0.0",
        eps_inside=True,
    )


def resolve(feature_map: Any, eps: float | None) -> tuple[FeatureMap | str, float]:
    """The map that an argument means, elementwise ones as FeatureMap, and its eps.

    Raises ArgumentError, ArgumentTypeError.
    """
    chosen = check_eps(eps)
    word = feature_map if isinstance(feature_map, str) else None
    if word == "relu":
        chosen = RELU_EPS if chosen is None else chosen
        return relu(chosen), chosen
    if word is not None and word in RANDOM_MAPS:
        return word, RANDOM_MAPS[word].eps if chosen is None else chosen
    if isinstance(feature_map, FeatureMap) and feature_map.eps_inside and chosen is not None:
        raise ArgumentError(
            f"eps wanted left out for feature map {feature_map.name!r}, which has it inside, got {eps}. "
            "Change its source."
        )
    if word == "elu" or isinstance(feature_map, FeatureMap):
        phi = ELU if word == "elu" else feature_map
        return phi, 0.0 if phi.eps_inside else ELU_EPS if chosen is None else chosen
    raise (ArgumentTypeError if word is None else ArgumentError)(
        f"feature_map wanted as one of {', '.join(RESERVED)}, or a FeatureMap, got {shown(feature_map)}. Choose one, "
        "or make FeatureMap(name, function, source)."
    )


def check_eps(eps: float | None) -> float | None:
    """eps as a float, or None. Raises ArgumentError, ArgumentTypeError."""
    return None if eps is None else check_number("eps", eps, "Leave it out for the map's own.", 0.0)


@strict()
def draw_orthogonal_features(num_features: int, head_dim: int, *, seed: int) -> NDArray[np.float64]:
    """Random rows omega for the maps "favor" and "rfa": Performer's orthogonal random features.

    Blocks of head_dim rows that are orthogonal to each other, each row with the length of a Gaussian vector (chi
    distributed), so that every row alone is standard normal (Choromanski et al., 2021, arXiv 2009.14794).

    Parameters
    ----------
    num_features : int
        Rows, at most 65,536.
    head_dim : int
        Numbers of a row, at most 256.
    seed : int
        The same seed, a whole number, gives the same rows.

    Returns
    -------
    omega : array (num_features, head_dim)
        float64.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For numbers that are none, or too large.
    """
    num_features = check_size("num_features", num_features, 1, LARGEST_FEATURES)
    head_dim = check_size("head_dim", head_dim, 1, LARGEST_DIM)
    rng = np.random.default_rng(check_size("seed", seed, 0, 2**128 - 1))
    blocks = [_orthogonal_rows(rng, head_dim) for _ in range(-(-num_features // head_dim))]
    lengths = np.sqrt(rng.chisquare(head_dim, num_features))
    rows: NDArray[np.float64] = np.concatenate(blocks)[:num_features] * lengths[:, None]
    return rows


def _orthogonal_rows(rng: np.random.Generator, size: int) -> NDArray[np.float64]:
    q, r = np.linalg.qr(rng.standard_normal((size, size)))
    rows: NDArray[np.float64] = (q * np.sign(np.diag(r))).T  # the signs make it uniform over all rotations
    return rows
