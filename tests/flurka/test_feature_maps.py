"""Feature maps: formulas, their derivatives, what is refused, and the random rows."""

import ast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flurka_numba import FeatureMap, draw_orthogonal_features
from flurka_numba.expressions import differentiate, evaluate, parse
from flurka_numba.feature_maps import ELU, relu, resolve
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.flurka.strategies import CORNERS, SOFTPLUS, SQUARE

X = np.concatenate([np.linspace(-8.003, 8.001, 97), [0.1234, -0.4321]])


@pytest.mark.parametrize("phi", [ELU, relu(), SQUARE, SOFTPLUS, CORNERS], ids=lambda phi: phi.name)
def test_source_and_derivative_are_those_of_the_function(phi):
    np.testing.assert_allclose(phi.values(X), phi.function(X), rtol=1e-12)
    slopes = (phi.function(X + 1e-6) - phi.function(X - 1e-6)) / 2e-6
    np.testing.assert_allclose(phi.slopes(X, phi.values(X)), slopes, rtol=1e-6, atol=1e-8)


def formulas():
    leaf = st.sampled_from(["x", "2", "0.5", "(-x)", "1.0"])

    def grow(inner):
        two = st.tuples(inner, inner)
        return st.one_of(
            two.flatmap(lambda ab: st.sampled_from([f"({ab[0]} {op} {ab[1]})" for op in "+-*"])),
            two.map(lambda ab: f"({ab[0]} / (1.0 + {ab[1]} ** 2))"),
            two.map(lambda ab: f"maximum({ab[0]}, {ab[1]})"),
            two.map(lambda ab: f"({ab[0]} if x > 0.31 else {ab[1]})"),
            inner.flatmap(lambda a: st.sampled_from([f"exp(-{a} ** 2)", f"log(2 + {a} ** 2)", f"sqrt(1 + {a} ** 4)"])),
        )

    return st.recursive(leaf, grow, max_leaves=6)


@given(formulas())
def test_derivatives_are_those_of_finite_differences(text):
    tree = parse("source", text)
    x = np.array([-1.2345, -0.5432, 0.1234, 0.8765, 1.3579])
    slope = ast.unparse(differentiate(tree))
    got = np.broadcast_to(evaluate(parse("derivative", slope), {"x": x}), x.shape)
    step = 1e-6
    above, here, below = (np.broadcast_to(evaluate(tree, {"x": x + s}), x.shape) for s in (step, 0.0, -step))
    corner = np.abs((above - here) - (here - below)) > 1e-3 * step * (1 + np.abs(above - below) / step)
    np.testing.assert_allclose(got[~corner], ((above - below) / (2 * step))[~corner], rtol=1e-4, atol=1e-4)


def test_derivatives_are_readable():
    def slope(text):
        return ast.unparse(differentiate(parse("source", text)))

    assert slope("x + 1.0 if x > 0.0 else exp(x)") == "1.0 if x > 0.0 else exp(x)"
    assert slope("maximum(x, 0.0) + 0.001") == "1.0 if x > 0.0 else 0.0"
    assert slope("log(1.0 + exp(x))") == "exp(x) / (1.0 + exp(x))"
    assert slope("x ** 3 - 2 * x") == "3.0 * x ** 2 - 2"
    assert slope("1 / x") == "-(1.0 / x ** 2)"


def test_maps_are_equal_by_what_kernels_depend_on():
    assert relu(1e-3) == relu(1e-3)
    assert hash(relu(1e-3)) == hash(relu(1e-3))
    assert relu(1e-3) != relu(1e-2)
    assert FeatureMap("e", np.exp, "exp(x)") == FeatureMap("e", lambda x: np.exp(x), "exp(x)")  # noqa: PLW0108
    assert FeatureMap("e", np.exp, "exp(x)") != FeatureMap("f", np.exp, "exp(x)")


def test_eps_is_the_maps_own_unless_given():
    assert resolve("elu", None) == (ELU, 1e-6)
    assert resolve("relu", 0.5) == (relu(0.5), 0.5)
    assert resolve("favor", None) == ("favor", 1e-4)
    assert resolve("rfa", 0.25) == ("rfa", 0.25)
    assert resolve(SOFTPLUS, 0) == (SOFTPLUS, 0.0)


def test_a_constant_map_is_allowed():
    one = FeatureMap("one", np.ones_like, "1.0")
    assert one.derivative_source == "0.0"
    np.testing.assert_array_equal(one.values(X), 1.0)
    np.testing.assert_array_equal(one.slopes(X, X), 0.0)


WRONG = {
    "negative": (lambda: FeatureMap("id", lambda x: x, "x"), "wanted with finite values >= 0"),
    "not finite": (lambda: FeatureMap("far", lambda x: np.exp(x * x * x * x), "exp(x ** 4)"), "finite values"),
    "apart": (lambda: FeatureMap("e", np.exp, "exp(x) + 1"), "wanted equal to function"),
    "shape": (lambda: FeatureMap("e", lambda x: np.exp(x).sum(), "exp(x)"), "wanted elementwise"),
    "slope": (lambda: FeatureMap("e", np.exp, "exp(x)", "2 * y"), "wanted as the gradient of source"),
    "a name": (lambda: FeatureMap("e", np.exp, "np.exp(x)"), "got 'np.exp(x)'"),
    "a variable": (lambda: FeatureMap("e", np.exp, "exp(y)"), "got 'y'"),
    "a call": (lambda: FeatureMap("e", np.exp, "__import__('os')"), "got \"__import__('os')\""),
    "a power": (lambda: FeatureMap("e", np.exp, "2.718281828 ** x"), "wanted with whole powers"),
    "arguments": (lambda: FeatureMap("e", np.exp, "maximum(x)"), "got 'maximum(x)'"),
    "two comparisons": (lambda: FeatureMap("e", np.exp, "1 if 0 < x < 1 else 2"), "a if x > b else c"),
    "truth": (lambda: FeatureMap("e", np.exp, "True"), "got 'True'"),
    "not closed": (lambda: FeatureMap("e", np.exp, "exp(x"), "wanted as one Python expression"),
    "identifier": (lambda: FeatureMap("my map", np.exp, "exp(x)"), "name wanted as an identifier"),
    "negative eps": (lambda: resolve("elu", -1.0), "eps wanted finite and >= 0"),
    "eps twice": (lambda: resolve(relu(), 0.1), "eps wanted left out"),
    "unknown": (lambda: resolve("gelu", None), "feature_map wanted as one of elu, relu, favor, rfa"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_maps_are_refused(name):
    make, message = WRONG[name]
    with pytest.raises(ArgumentError) as caught:
        make()
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "make",
    [
        lambda: FeatureMap("e", 1.0, "exp(x)"),
        lambda: FeatureMap("e", np.exp, np.exp),
        lambda: resolve(np.exp, None),
        lambda: resolve("elu", "small"),
        lambda: draw_orthogonal_features(4.0, 4, seed=0),
    ],
)
def test_wrong_types_are_refused(make):
    with pytest.raises(ArgumentTypeError):
        make()


def test_random_rows_are_orthogonal_in_blocks_and_long_as_gaussian_vectors():
    rows = draw_orthogonal_features(70, 32, seed=3)
    assert rows.shape == (70, 32)
    for block in (rows[:32], rows[32:64], rows[64:]):
        products = block @ block.T
        np.testing.assert_allclose(products - np.diag(np.diag(products)), 0.0, atol=1e-10)
    many = draw_orthogonal_features(20000, 8, seed=4)
    assert abs(np.square(many).sum(axis=1).mean() / 8 - 1) < 0.02
    assert np.abs(many.mean(axis=0)).max() < 0.03
    np.testing.assert_allclose(many.T @ many / 20000, np.eye(8), atol=0.03)


def test_a_seed_gives_the_same_rows():
    np.testing.assert_array_equal(draw_orthogonal_features(9, 5, seed=1), draw_orthogonal_features(9, 5, seed=1))
    assert not np.allclose(draw_orthogonal_features(9, 5, seed=1), draw_orthogonal_features(9, 5, seed=2))


def test_orthogonal_rows_estimate_the_softmax_kernel(rng):
    x, y = 0.2 * rng.standard_normal((2, 16))
    omega = draw_orthogonal_features(4096, 16, seed=0)

    def phi(z):
        return np.exp(omega @ z - z @ z / 2) / np.sqrt(len(omega))

    assert phi(x) @ phi(y) == pytest.approx(np.exp(x @ y), rel=0.1)


@pytest.mark.parametrize(("rows", "width"), [(0, 4), (4, 0), (-1, 4)])
def test_sizes_below_one_are_refused(rows, width):
    with pytest.raises(ArgumentError, match="wanted >= 1"):
        draw_orthogonal_features(rows, width, seed=0)


@pytest.mark.parametrize("sizes", [(10**12, 64), (8, 10**9)])
def test_features_beyond_all_use_are_refused_at_once(sizes):
    with pytest.raises(ArgumentError, match=r"^(num_features|head_dim) wanted "):
        draw_orthogonal_features(*sizes, seed=0)
