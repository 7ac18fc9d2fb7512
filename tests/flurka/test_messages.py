"""The exact text of the likeliest user errors: each names the argument, what was wanted, what came, and the next step.

All are found before anything is compiled.
"""

import numpy as np
import pytest

import flurka_numba as flurka
from splat_numba.errors import SplatError

Q = np.zeros((2, 4, 8, 16), np.float32)
E = np.zeros((3, 8), np.float32)
W = np.zeros((16, 16), np.float32)
OMEGA = flurka.draw_orthogonal_features(8, 16, seed=0)


def attend(q=Q, k=Q, v=Q, proj_k=E, proj_v=None, **options):
    return flurka.attention(q, k, v, proj_k, proj_v, **options)


def layer(w_q=W, w_k=W, w_v=W, w_o=W, proj_k=E, heads=4, **options):
    return flurka.FlurkaLayer(w_q, w_k, w_v, w_o, proj_k, heads=heads, **options)


MESSAGES = {
    "causal": (
        lambda: attend(causal=True),
        "ArgumentError: causal wanted as False, got True: a projection mixes all positions into every slot, so that "
        "later tokens reach earlier ones, and kernel attention keeps no state per position here. For a causal mask use "
        "splat_numba.attention(q, k, v, splat_numba.causal()).",
    ),
    "projection of another length": (
        lambda: attend(proj_k=np.zeros((3, 9), np.float32)),
        "ArgumentError: proj_k wanted as (rank, seq_kv) or (heads, rank, seq_kv) with seq_kv = 8 and heads = 4, got "
        "shape (3, 9). Make one for this length, or cut its columns: proj_k[..., :8].",
    ),
    "projections that differ": (
        lambda: attend(proj_v=np.zeros((4, 8), np.float32)),
        "ArgumentError: proj_v wanted of shape (3, 8) as proj_k is, got (4, 8). Leave it out to use proj_k for the "
        "values too.",
    ),
    "no projection": (
        lambda: attend(proj_k=None),
        "ArgumentTypeError: proj_k wanted as an array (rank, seq_kv) or (heads, rank, seq_kv), got None. Give one, or "
        "use kernel_attention, which has no projection.",
    ),
    "projection's dtype": (
        lambda: attend(proj_k=E.astype(np.float64)),
        "ArgumentTypeError: proj_k wanted as float32 as q is, got float64. Convert one of them.",
    ),
    "grouped-query heads": (
        lambda: attend(k=Q[:, :2], v=Q[:, :2]),
        "ArgumentError: k wanted with q's 4 heads, got 2: grouped-query heads are not supported. Repeat them, for "
        "example with np.repeat(k, 2, axis=-3), and those of v.",
    ),
    "ranks that differ": (
        lambda: attend(k=Q[0]),
        "ArgumentError: k wanted with 4 axes as q has, got shape (4, 8, 16). Give all the same axes.",
    ),
    "width of k": (
        lambda: attend(k=Q[..., :8]),
        "ArgumentError: k wanted as (batch, heads, seq, head_dim) = (2, 4, 8, 16) to fit q, got (2, 4, 8, 8). Check "
        "batch and head_dim.",
    ),
    "length of v": (
        lambda: attend(v=Q[:, :, :5]),
        "ArgumentError: v wanted with (batch, heads, seq) = (2, 4, 8) to fit k, got (2, 4, 5, 16). Check its axes.",
    ),
    "unknown map": (
        lambda: attend(feature_map="gelu"),
        "ArgumentError: feature_map wanted as one of elu, relu, favor, rfa, or a FeatureMap, got 'gelu'. Choose one, "
        "or make FeatureMap(name, function, source).",
    ),
    "favor without omega": (
        lambda: attend(feature_map="favor"),
        "ArgumentError: omega wanted for feature map 'favor', got None. Give flurka_numba.draw_orthogonal_features("
        "num_features, 16, seed=0).",
    ),
    "omega of another width": (
        lambda: attend(feature_map="rfa", omega=OMEGA[:, :8]),
        "ArgumentError: omega wanted as (num_features, head_dim) with head_dim = 16, got shape (8, 8). Give "
        "flurka_numba.draw_orthogonal_features(num_features, 16, seed=0).",
    ),
    "omega with elu": (
        lambda: attend(omega=OMEGA),
        "ArgumentError: omega wanted left out, because feature map 'elu' is elementwise, got an array. Leave it out, "
        "or choose feature_map='favor' or 'rfa'.",
    ),
    "negative features": (
        lambda: flurka.FeatureMap("identity", lambda x: x, "x"),
        "ArgumentError: function of feature map 'identity' wanted with finite values >= 0, because they are weights, "
        "got -10.007 at x = -10.007. Use for example maximum(x, 0.0) or exp(x).",
    ),
    "source with another name": (
        lambda: flurka.FeatureMap("power", np.exp, "np.exp(x)"),
        "ArgumentError: source wanted with x, numbers, + - * / **, exp, log, sqrt, maximum and 'a if x > b else c', "
        "got 'np.exp(x)'. Write it with these.",
    ),
    "key lengths": (
        lambda: attend(kv_lengths=np.array([4, 9])),
        "ArgumentError: kv_lengths wanted between 0 and seq_kv = 8, got [4, 9]. Correct them.",
    ),
    "key lengths without a batch": (
        lambda: attend(Q[0], Q[0], Q[0], kv_lengths=np.array([4])),
        "ArgumentError: kv_lengths needs a batch axis, got q with 3 axes. Give q[None], k[None], v[None].",
    ),
    "out of another shape": (
        lambda: attend(out=np.zeros((2, 4, 8, 15), np.float32)),
        "ArgumentError: out wanted of shape (2, 4, 8, 16), got (2, 4, 8, 15). Give one of this shape.",
    ),
    "out over q": (
        lambda: attend(Q.copy(), out=Q),
        "ArgumentError: out wanted apart from the inputs, got memory that k uses. Give a fresh array.",
    ),
    "scale below float32": (
        lambda: flurka.low_rank_attention(Q, Q, Q, E, scale=-1e-39),
        "ArgumentError: scale wanted as 0 or of a magnitude from 1.2e-38 to 2.3e+38 for float32 arrays, got -1e-39. "
        "Multiply q or k by a part of it.",
    ),
    "scale": (
        lambda: flurka.low_rank_attention(Q, Q, Q, E, scale="1"),
        "ArgumentTypeError: scale wanted as a number, got str. Give a Python float, or leave it out for "
        "1/sqrt(head_dim).",
    ),
    "backend": (
        lambda: attend(backend="gpu"),
        "BackendError: backend wanted as one of auto, cpu, cuda, emulate, got 'gpu'. Leave it out to choose for you.",
    ),
    "target": (
        lambda: attend(target="sm_70"),
        "BackendError: target wanted as None or 'cpu' for backend 'auto', got 'sm_70'. Leave it out.",
    ),
    "frozen as text": (
        lambda: flurka.attention_vjp(Q, Q, Q, E, frozen="proj_k"),
        "ArgumentTypeError: frozen wanted as a collection of names, got 'proj_k'. Give for example frozen=('proj_k', "
        "'proj_v').",
    ),
    "frozen name": (
        lambda: flurka.kernel_attention_vjp(Q, Q, Q, frozen=["proj_k"]),
        "ArgumentError: frozen wanted with names of q, k, v, got 'proj_k'. Leave it out, or correct it.",
    ),
    "a list": (
        lambda: attend(q=Q.tolist()),
        "ArgumentTypeError: q wanted as an array (NumPy, or anything with DLPack), got list. Convert it, for example "
        "with np.asarray(q, dtype=np.float32).",
    ),
    "a mask": (
        lambda: attend(mask=None),
        "ArgumentTypeError: mask wanted left out, because attention has no such argument. This attention has no mask: "
        "use splat_numba.attention(q, k, v, mask).",
    ),
    "biases of a layer": (
        lambda: layer(bias=None),
        "ArgumentTypeError: bias wanted left out, because FlurkaLayer has no such argument. There are neither scores "
        "nor biases that it could change, so it cannot be given.",
    ),
    "eps": (
        lambda: attend(eps=-1.0),
        "ArgumentError: eps wanted finite and >= 0, got -1.0. Leave it out for the map's own.",
    ),
    "a map with a name of the package's": (
        lambda: flurka.FeatureMap("elu", np.exp, "exp(x)"),
        "ArgumentError: name wanted other than elu, relu, favor, rfa, the package's own maps, got 'elu'. Choose "
        "another.",
    ),
    "a map with a long name": (
        lambda: flurka.FeatureMap("e" * 300, np.exp, "exp(x)"),
        "ArgumentError: name wanted with at most 64 letters, got 300. Shorten it.",
    ),
    "a map's function that fails": (
        lambda: flurka.FeatureMap("e", lambda x: 1 / 0, "exp(x)"),  # noqa: ARG005
        "ArgumentError: function of feature map 'e' wanted to take an array of float64, got ZeroDivisionError: "
        "division by zero. Use NumPy functions of single numbers.",
    ),
    "a power of True": (
        lambda: flurka.FeatureMap("e", np.abs, "x ** True"),
        "ArgumentError: source wanted with whole powers from 0 to 16, got 'x ** True'. Write sqrt(x), a division, or "
        "exp(a * log(x)).",
    ),
    "a seed that is no integer": (
        lambda: flurka.draw_orthogonal_features(8, 16, seed=None),
        "ArgumentTypeError: seed wanted as an integer, got NoneType. Give a whole number.",
    ),
    "more rows than can be": (
        lambda: flurka.draw_orthogonal_features(10**12, 16, seed=0),
        "ArgumentError: num_features wanted <= 65536, got 1000000000000. Give at most 65536.",
    ),
    "text for the oracle": (
        lambda: flurka.reference.attention("q", Q, Q, E),
        "ArgumentTypeError: q wanted as an array of real numbers, got str. Make one with np.asarray.",
    ),
    "weights in lists": (
        lambda: layer(w_q=W.tolist()),
        "ArgumentTypeError: w_q wanted as an array, got list. Give one of NumPy, PyTorch, CuPy or JAX.",
    ),
    "weights that are not square": (
        lambda: layer(w_q=W[:, :8]),
        "ArgumentError: w_q wanted as (model_dim, model_dim), got shape (16, 8). Give a square matrix.",
    ),
    "heads that do not divide": (
        lambda: layer(heads=3),
        "ArgumentError: heads wanted as a divisor of model_dim = 16, got 3. Choose another.",
    ),
    "a sequence of another length": (
        lambda: layer()(np.zeros((9, 16), np.float32)),
        "ArgumentError: x wanted as (batch, seq, model_dim) or (seq, model_dim) with seq = 8 (the columns of proj_k) "
        "and model_dim = 16, got shape (9, 16). Pad it with zeros, or make another layer.",
    ),
    "x of another dtype": (
        lambda: layer()(np.zeros((8, 16))),
        "ArgumentTypeError: x wanted as float32 as the weights are, got float64. Convert one of them.",
    ),
    "frozen parameter": (
        lambda: layer().vjp(np.zeros((8, 16), np.float32), frozen=("bias",)),
        "ArgumentError: frozen wanted with names of w_q, w_k, w_v, w_o, proj_k, proj_v, x, got 'bias'. Leave it "
        "out, or correct it.",
    ),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_message(name):
    act, text = MESSAGES[name]
    with pytest.raises(SplatError) as caught:
        act()
    assert f"{caught.type.__name__}: {caught.value}" == text
