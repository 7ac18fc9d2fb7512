"""Problem: the shapes, types and options of one call, checked. Call: the caller's own arguments. Nothing is decided."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flurka_numba.feature_maps import FeatureMap
from splat_numba.gen.language.dtypes import ITEMSIZE


@dataclass(frozen=True, slots=True)
class Problem:
    """One call without its arrays; equal problems can share a kernel.

    method: "flurka", "low_rank" or "kernel". seq_q, seq_kv: tokens; rank: slots, 0 for "kernel"; features: of one
    token after the feature map, 0 for "low_rank". dtype: of the arrays, by name. feature_map: a FeatureMap, or "favor"
    or "rfa" (random features, which have omega), or None for "low_rank". eps: the feature map's, resolved; 0 for
    "low_rank". per_head_proj: projections are (heads, rank, seq_kv). shared_proj: there is no proj_v, proj_k does for
    the values too. ragged: kv_lengths were given. scale: of the scores of "low_rank", else 1. model_dim: of a layer's
    input x where the queries are x w_q and one stage makes them and uses them, else 0.
    """

    method: str
    batch: int
    heads: int
    seq_q: int
    seq_kv: int
    rank: int
    head_dim: int
    value_dim: int
    features: int
    dtype: str
    feature_map: FeatureMap | str | None
    eps: float
    per_head_proj: bool
    shared_proj: bool
    ragged: bool
    scale: float
    model_dim: int = 0

    @property
    def compute_dtype(self) -> str:
        """What sums are kept in: float64 for float64, float32 for everything else."""
        return "float64" if self.dtype == "float64" else "float32"

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return ITEMSIZE[self.dtype]

    @property
    def random(self) -> bool:
        """Whether features are random ones, of the rows of omega."""
        return isinstance(self.feature_map, str)

    @property
    def slots(self) -> int:
        """Rows that the second stage sees: the projected ones, or for "kernel" the keys themselves."""
        return self.seq_kv if self.method == "kernel" else self.rank

    @property
    def denominator(self) -> str:
        """What divides a row, from den = phi(q).z.

        "plus_eps": den + eps (elu and users' maps); "plain": den (relu and favor have eps inside phi); "guarded":
        den with its magnitude at least eps (rfa is signed). A divisor of exactly 0 gives a row of zeros.
        """
        if self.feature_map == "rfa":
            return "guarded"
        inside = self.feature_map == "favor" or (
            isinstance(self.feature_map, FeatureMap) and self.feature_map.eps_inside
        )
        return "plain" if inside else "plus_eps"

    @property
    def differentiated(self) -> tuple[str, ...]:
        """Names of the arrays that have gradients, in the order of a call."""
        projections = () if self.method == "kernel" else ("proj_k",) if self.shared_proj else ("proj_k", "proj_v")
        return ("q", "k", "v", *projections)

    @property
    def inputs(self) -> tuple[str, ...]:
        """Names of a call's arrays, in their order."""
        return (*self.differentiated, *("omega",) * self.random, *("kv_lengths",) * self.ragged)

    @property
    def gradients(self) -> tuple[str, ...]:
        """Names of the results of a call's vjp, in their order."""
        return tuple(f"d{name}" for name in self.differentiated)


@dataclass(slots=True, eq=False)
class Call:
    """The arguments of one call, untouched; what a method has not is None. eq=False: arrays have no single truth.

    heads: where it is not 0, q, k, v and out are rows (..., seq, heads * dim), as a layer has them, and the result is
    in out; see heads.py. w_q: (model_dim, model_dim), with heads alone: q is the layer's input, and q w_q the queries.
    Nobody changes it; that it is not frozen saves each call a microsecond.
    """

    method: str
    q: Any
    k: Any
    v: Any
    proj_k: Any = None
    proj_v: Any = None
    feature_map: Any = None
    omega: Any = None
    eps: float | None = None
    scale: float | None = None
    kv_lengths: Any = None
    backend: str = "auto"
    target: str | None = None
    out: Any = None
    heads: int = 0
    w_q: Any = None
