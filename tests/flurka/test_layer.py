"""FlurkaLayer: both orders against the oracle, gradients by finite differences, kinds of arrays, explain()."""

import numpy as np
import pytest

from flurka_numba import FlurkaLayer, draw_orthogonal_features, reference
from flurka_numba.layer import merge, split
from flurka_numba.layer_parameters import PARAMETERS
from splat_numba.errors import ArgumentError
from tests.flurka.strategies import numpy_dtype

SEQ, MODEL_DIM, HEADS, RANK = 24, 12, 3, 7
KINDS = {
    "order b": {},
    "order b, shared": {"shared": True},
    "a projection a head": {"per_head": True},
    "a projection a head, shared": {"per_head": True, "shared": True},
    "order a, rank beyond seq": {"rank": 40},
}


def make_layer(dtype="float64", *, shared=False, per_head=False, rank=RANK, phi="elu", eps=None):
    rng = np.random.default_rng(3)

    def draw(*shape):
        return (rng.standard_normal(shape) / shape[-1] ** 0.5).astype(numpy_dtype(dtype))

    leading = (HEADS,) if per_head else ()
    weights = [draw(MODEL_DIM, MODEL_DIM) for _ in range(4)]
    proj_k, proj_v = draw(*leading, rank, SEQ), draw(*leading, rank, SEQ)
    omega = draw_orthogonal_features(6, MODEL_DIM // HEADS, seed=0) if phi in ("favor", "rfa") else None
    return FlurkaLayer(*weights, proj_k, None if shared else proj_v, heads=HEADS, feature_map=phi, omega=omega, eps=eps)


def wanted(layer, x):
    """The layer in float64, by its definition."""
    w_q, w_k, w_v, w_o, proj_k = (np.asarray(getattr(layer, name), np.float64) for name in PARAMETERS[:5])
    proj_v = None if layer.proj_v is None else np.asarray(layer.proj_v, np.float64)
    q, k, v = (split(np.asarray(x, np.float64) @ w, HEADS) for w in (w_q, w_k, w_v))
    options = {"feature_map": layer.feature_map, "omega": layer.omega, "eps": layer.eps}
    return merge(reference.attention(q, k, v, proj_k, proj_v, **options)) @ w_o


@pytest.mark.parametrize("leading", [(), (2,)], ids=["no batch", "batch"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phi", ["elu", "favor"])
def test_a_layer_is_its_definition_in_both_orders(phi, kind, leading, rng):
    layer = make_layer(phi=phi, **KINDS[kind])
    assert layer.order == ("b" if kind.startswith("order b") else "a")
    x = rng.standard_normal((*leading, SEQ, MODEL_DIM))
    out = layer(x)
    np.testing.assert_allclose(out, wanted(layer, x), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(layer.vjp(x)[0], out, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("leading", [(), (2,)], ids=["no batch", "batch"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("phi", ["elu", "favor"])
def test_gradients_are_those_of_finite_differences(phi, kind, leading, rng):
    layer = make_layer(phi=phi, eps=0.0, **KINDS[kind])  # favor's stabilisers have no gradient, without eps no effect
    x, dout = rng.standard_normal((2, *leading, SEQ, MODEL_DIM))
    _, vjp = layer.vjp(x)
    found = vjp(dout)
    assert list(found) == list(PARAMETERS)
    for name, gradient in found.items():
        array = x if name == "x" else getattr(layer, name)
        if array is None:
            assert gradient is None
            continue
        assert gradient.shape == array.shape
        direction = rng.standard_normal(array.shape)
        kept, step = array.copy(), 1e-6
        array += step * direction
        above = np.sum(wanted(layer, x) * dout)
        array -= 2 * step * direction
        slope = (above - np.sum(wanted(layer, x) * dout)) / (2 * step)
        array[...] = kept
        np.testing.assert_allclose(np.sum(gradient * direction), slope, rtol=2e-6, atol=1e-7, err_msg=name)


def test_frozen_parameters_have_no_gradient(rng):
    x = rng.standard_normal((SEQ, MODEL_DIM))
    for layer in (make_layer(), make_layer(per_head=True)):
        frozen = ("w_q", "proj_k", "x")
        part = layer.vjp(x, frozen=frozen)[1](x)
        whole = layer.vjp(x)[1](x)
        for name in PARAMETERS:
            if name in frozen:
                assert part[name] is None
            else:
                np.testing.assert_array_equal(part[name], whole[name])


@pytest.mark.parametrize(("dtype", "error"), [("float32", 1e-5), ("float16", 1e-2), ("bfloat16", 6e-2)])
def test_narrow_dtypes_stay_what_they_are(dtype, error, rng):
    layer = make_layer(dtype)
    x = rng.standard_normal((2, SEQ, MODEL_DIM)).astype(numpy_dtype(dtype))
    out, vjp = layer.vjp(x)
    assert layer(x).dtype == out.dtype == x.dtype
    right = wanted(layer, x)
    assert np.abs(np.asarray(out, np.float64) - right).max() < error * np.abs(right).max()
    assert all(g.dtype == x.dtype for g in vjp(out).values())


def test_sums_of_numpy_float16_are_kept_in_float32():
    layer = make_layer("float16")
    x = np.full((1, SEQ, MODEL_DIM), 200.0, np.float16)
    assert np.isfinite(layer(x)).all()


def test_no_tokens_and_no_slots():
    assert make_layer(rank=0)(np.ones((2, SEQ, MODEL_DIM))).tolist() == np.zeros((2, SEQ, MODEL_DIM)).tolist()
    weights, empty = [np.eye(MODEL_DIM)] * 4, np.ones((RANK, 0))
    assert FlurkaLayer(*weights, empty, heads=HEADS)(np.ones((2, 0, MODEL_DIM))).shape == (2, 0, MODEL_DIM)


def test_padding_rows_of_zeros_add_nothing(rng):
    layer = make_layer()
    x = rng.standard_normal((SEQ, MODEL_DIM))
    x[-5:] = 0
    short = FlurkaLayer(
        layer.w_q, layer.w_k, layer.w_v, layer.w_o, layer.proj_k[:, :-5], layer.proj_v[:, :-5], heads=HEADS
    )
    np.testing.assert_allclose(layer(x)[:-5], short(x[:-5]), rtol=1e-12)


def test_torch_arrays_give_torch_arrays(rng):
    torch = pytest.importorskip("torch")
    layer = make_layer("float32")
    x = rng.standard_normal((2, SEQ, MODEL_DIM)).astype(np.float32)
    same = FlurkaLayer(*(torch.from_numpy(getattr(layer, name)) for name in PARAMETERS[:6]), heads=HEADS)
    out, vjp = same.vjp(torch.from_numpy(x))
    assert isinstance(same(torch.from_numpy(x)), torch.Tensor)
    np.testing.assert_allclose(out.numpy(), layer(x), rtol=1e-4, atol=1e-5)
    for name, gradient in layer.vjp(x)[1](x).items():
        got = vjp(torch.from_numpy(x))[name]
        np.testing.assert_allclose(got.numpy(), gradient, rtol=1e-3, atol=1e-4, err_msg=name)


def test_jax_arrays_give_jax_arrays(rng):
    jnp = pytest.importorskip("jax.numpy")
    layer = make_layer("float32")
    x = rng.standard_normal((SEQ, MODEL_DIM)).astype(np.float32)
    same = FlurkaLayer(*(jnp.asarray(getattr(layer, name)) for name in PARAMETERS[:6]), heads=HEADS)
    out = same(jnp.asarray(x))
    assert type(out).__module__.startswith("jax")
    np.testing.assert_allclose(np.asarray(out), layer(x), rtol=1e-4, atol=1e-5)


def test_a_gradient_of_another_shape_is_refused_in_the_shape_of_x(rng):
    x = rng.standard_normal((2, SEQ, MODEL_DIM))
    for wrong in (x[:1], x[0], x[..., :1]):
        with pytest.raises(ArgumentError) as caught:
            make_layer().vjp(x)[1](wrong)
        assert str(caught.value) == (
            f"dout wanted of shape {x.shape} as x is, got {wrong.shape}. Give one of this shape."
        )


def test_masked_arrays_are_refused(rng):
    layer, x = make_layer(), np.ma.masked_array(rng.standard_normal((SEQ, MODEL_DIM)), mask=True)
    with pytest.raises(ArgumentError, match=r"^x wanted as a plain array, got a masked one"):
        layer(x)
    with pytest.raises(ArgumentError, match=r"^dout wanted as a plain array, got a masked one"):
        layer.vjp(x.data)[1](x)
    weights = [getattr(layer, name) for name in PARAMETERS[:5]]
    with pytest.raises(ArgumentError, match=r"^w_o wanted as a plain array, got a masked one"):
        FlurkaLayer(*weights[:3], np.ma.masked_array(layer.w_o), layer.proj_k, heads=HEADS)


def test_explain_and_repr_say_the_order():
    assert "order (b): x compressed" in make_layer().explain()
    assert "each head has a projection of its own" in make_layer(per_head=True).explain(batch=2)
    assert repr(make_layer()) == "<FlurkaLayer model_dim=12, heads=3, rank=7, seq=24, float64, order 'b'>"


def test_layers_are_frozen():
    layer = make_layer()
    with pytest.raises(AttributeError):
        layer.heads = 2
