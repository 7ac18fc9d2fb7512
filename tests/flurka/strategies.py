"""Hypothesis: whole calls of the three methods, small enough to print and complete enough to repeat."""

from dataclasses import dataclass, fields, replace
from typing import Any

import ml_dtypes
import numpy as np
from hypothesis import strategies as st

import flurka_numba
from flurka_numba import FeatureMap, draw_orthogonal_features, reference
from flurka_numba.problem import Call

SQUARE = FeatureMap("square", lambda x: x**2 / (1.0 + x * x) + 0.25, "x ** 2 / (1.0 + x * x) + 0.25")
SOFTPLUS = FeatureMap("softplus", lambda x: np.log(1.0 + np.exp(x)), "log(1.0 + exp(x))")
CORNERS = FeatureMap("corners", lambda x: np.sqrt(np.maximum(x, 0.01) + 2.0), "sqrt(maximum(x, 0.01) + 2.0)")
MAPS: dict[str, Any] = {
    **{name: name for name in ("elu", "relu", "favor", "rfa")},
    **{phi.name: phi for phi in (SQUARE, SOFTPLUS, CORNERS)},
}
METHODS = {"flurka": "attention", "low_rank": "low_rank_attention", "kernel": "kernel_attention"}
DTYPES = ("float32", "float64", "float16", "bfloat16")
# Methods with their maps: all; those of which a kernel is compiled (5 s each) in float32; and in the other dtypes.
EVERY_KIND = [(method, phi) for method in METHODS for phi in MAPS if method != "low_rank" or phi == "elu"]
KINDS = [(method, phi) for method, phi in EVERY_KIND if phi not in ("square", "corners")]
FEW_KINDS = [("flurka", "elu"), ("flurka", "favor"), ("low_rank", "elu")]


def numpy_dtype(name):
    return np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)


@dataclass(frozen=True, repr=False)
class Case:
    """One call. batch None: no batch axis; heads None: no heads axis either. rows: of omega. eps, scale: None: default.

    strided: arrays are views with gaps and swapped axes. spread: standard deviation of q and k.
    """

    method: str = "flurka"
    feature_map: str = "elu"
    seq_q: int = 8
    seq_kv: int = 8
    rank: int = 4
    head_dim: int = 16
    value_dim: int = 16
    rows: int = 8
    batch: int | None = 1
    heads: int | None = 2
    dtype: str = "float32"
    per_head: bool = False
    shared: bool = False
    kv_lengths: tuple[int, ...] | None = None
    eps: float | None = None
    scale: float | None = None
    strided: bool = False
    spread: float = 1.0
    seed: int = 0

    def arrays(self) -> dict[str, Any]:
        """q, k, v, and what the method has of proj_k, proj_v, omega: always the same ones."""
        rng = np.random.default_rng(self.seed)
        leading = [n for n in (self.batch, self.heads) if n is not None]
        found = {
            "q": self._draw(rng, (*leading, self.seq_q, self.head_dim), self.spread),
            "k": self._draw(rng, (*leading, self.seq_kv, self.head_dim), self.spread),
            "v": self._draw(rng, (*leading, self.seq_kv, self.value_dim), 1.0),
        }
        if self.method != "kernel":
            heads = [self.heads or 1] if self.per_head else []
            for name in ["proj_k"] if self.shared else ["proj_k", "proj_v"]:
                found[name] = self._draw(rng, (*heads, self.rank, self.seq_kv), max(self.seq_kv, 1) ** -0.5)
        if self.feature_map in ("favor", "rfa") and self.method != "low_rank":
            omega = draw_orthogonal_features(self.rows, self.head_dim, seed=self.seed)
            found["omega"] = omega if self.dtype == "float64" else omega.astype(np.float32)
        return found

    def _draw(self, rng, shape, size):
        values = (size * rng.standard_normal(shape)).astype(numpy_dtype(self.dtype))
        if not self.strided:
            return values
        loose = np.full((*(2 * n for n in shape[-2:]), *shape[:-2]), np.nan, values.dtype)  # gaps hold NaN
        view = np.moveaxis(loose[::2, 1::2], (0, 1), (-2, -1))
        view[...] = values
        return view

    def dout(self):
        """A gradient of out."""
        leading = [n for n in (self.batch, self.heads) if n is not None]
        shape = (*leading, self.seq_q, self.value_dim)
        return np.random.default_rng(self.seed + 1).standard_normal(shape).astype(numpy_dtype(self.dtype))

    def options(self) -> dict[str, Any]:
        """The keyword arguments but for omega."""
        lengths = None if self.kv_lengths is None else np.array(self.kv_lengths, np.int64)
        if self.method == "low_rank":
            return {"scale": self.scale, "kv_lengths": lengths}
        return {"feature_map": MAPS[self.feature_map], "eps": self.eps, "kv_lengths": lengths}

    def call(self, arrays=None, **more) -> Call:
        """The call as the package's inside sees it."""
        return Call(self.method, **(self.arrays() if arrays is None else arrays), **self.options(), **more)

    def run(self, arrays=None, **more):
        """Through the public function."""
        given = self.arrays() if arrays is None else arrays
        return getattr(flurka_numba, METHODS[self.method])(**given, **{**self.options(), **more})

    def run_vjp(self, arrays=None, **more):
        given = self.arrays() if arrays is None else arrays
        return getattr(flurka_numba, METHODS[self.method] + "_vjp")(**given, **{**self.options(), **more})

    def wanted_vjp(self, arrays=None):
        """Through the oracle."""
        given = self.arrays() if arrays is None else arrays
        return getattr(reference, METHODS[self.method] + "_vjp")(**given, **self.options())

    def but(self, **changes):
        return replace(self, **changes)

    def __repr__(self) -> str:
        shown = [f"{f.name}={getattr(self, f.name)!r}" for f in fields(self) if getattr(self, f.name) != f.default]
        return f"Case({', '.join(shown)})"


LENGTHS = st.one_of(st.sampled_from([8, 0, 1, 2, 3, 7, 16, 17, 31, 33, 64, 97]), st.integers(0, 130))


def dims(largest=80):
    return st.one_of(st.sampled_from([d for d in (16, 1, 8, 32, 33, 64, 80) if d <= largest]), st.integers(1, largest))


@st.composite
def cases(draw, *, kinds=EVERY_KIND, maps=tuple(MAPS), dtypes=DTYPES, lengths=LENGTHS, max_dim=80):
    """Calls over methods, maps, ranks (beyond seq_kv too), lengths, dims, dtypes, projections, key lengths, strides."""
    missing = draw(st.integers(0, 2))
    batch = draw(st.sampled_from([1, 2, 0, 3])) if missing == 0 else None
    heads = draw(st.sampled_from([1, 2, 3])) if missing < 2 else None
    method, feature_map = draw(st.sampled_from([kind for kind in kinds if kind[1] in maps]))
    seq_kv = draw(lengths)
    ragged = batch and draw(st.booleans())
    return Case(
        method=method,
        feature_map=feature_map,
        seq_q=draw(st.one_of(st.just(seq_kv), lengths)),
        seq_kv=seq_kv,
        rank=draw(st.one_of(st.sampled_from([4, 1, 0, 16, 31, 64]), st.integers(0, 100))) if method != "kernel" else 0,
        head_dim=draw(dims(max_dim)),
        value_dim=draw(dims(max_dim)),
        rows=draw(st.one_of(st.sampled_from([8, 1, 16, 64]), st.integers(1, 100))),
        batch=batch,
        heads=heads,
        dtype=draw(st.sampled_from(dtypes)),
        per_head=draw(st.booleans()),
        shared=draw(st.booleans()),
        kv_lengths=tuple(draw(st.integers(0, seq_kv)) for _ in range(batch)) if ragged else None,
        eps=draw(st.sampled_from([None, None, 1e-2])),
        scale=draw(st.sampled_from([None, 1.0, -0.3])) if method == "low_rank" else None,
        strided=draw(st.booleans()),
        spread=draw(st.sampled_from([1.0, 2.0, 0.1])),
        seed=draw(st.integers(0, 2**16)),
    )
