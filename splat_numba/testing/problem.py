"""A problem: everything that one attention call depends on, small enough to print and complete enough to repeat."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from math import sqrt
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from splat_numba.errors import ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.plain import kind
from splat_numba.reference import Bool, Layout
from splat_numba.testing.error_bound import numpy_dtype

MaskLike: TypeAlias = Pattern | ACSR | Bool


class Operands(NamedTuple):
    """The arrays of a problem, in its layout: q, k, v as in `splat_numba.attention`."""

    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Problem:
    """One attention call. `eval(repr(problem))` repeats it, with `from splat_numba import *` and `import numpy as np`.

    mask: Pattern, ACSR, bool array (seq_q, seq_kv), or a sequence of those, one per query head.
    dtype: "float16", "bfloat16", "float32" or "float64". batch=None: no batch axis; heads_q=None: no heads axis either.
    heads_kv and value_dim default to heads_q and head_dim. scale=None is 1/sqrt(head_dim). kv_lengths: one per batch
    element. seed: of the generator that makes the arrays, standard normal. spread: standard deviation of the scores
    under the default scale, so how far one row's weights differ. minus_inf: share of the keys that make every score
    -inf (none where scale is 0).
    """

    seq_q: int
    seq_kv: int
    mask: MaskLike | Sequence[MaskLike]
    dtype: str = "float32"
    batch: int | None = None
    heads_q: int | None = None
    heads_kv: int | None = None
    head_dim: int = 16
    value_dim: int | None = None
    layout: Layout = "bhsd"
    scale: float | None = None
    kv_lengths: tuple[int, ...] | None = None
    seed: int = 0
    spread: float = 1.0
    minus_inf: float = 0.0

    def arrays(self) -> Operands:
        """Make q, k and v from the seed: always the same ones, C-contiguous, of the problem's dtype and layout."""
        rng = np.random.default_rng(self.seed)
        heads_kv = self.heads_q if self.heads_kv is None else self.heads_kv
        value_dim = self.head_dim if self.value_dim is None else self.value_dim
        q = self._draw(rng, self.heads_q, self.seq_q, self.head_dim, sqrt(self.spread))
        k = self._draw(rng, heads_kv, self.seq_kv, self.head_dim, sqrt(self.spread))
        v = self._draw(rng, heads_kv, self.seq_kv, value_dim, 1.0)
        if self.minus_inf and self.scale != 0:
            q[..., 0] = np.abs(q[..., 0])
            k[rng.random(k.shape[:-1]) < self.minus_inf, 0] = -np.inf if (self.scale or 1.0) > 0 else np.inf
        return Operands(q, k, v)

    def gradients(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Make a gradient of out, of its shape and dtype, and one of lse, float32 or float64, from the seed."""
        rng = np.random.default_rng((self.seed, 1))
        value_dim = self.head_dim if self.value_dim is None else self.value_dim
        dout = self._draw(rng, self.heads_q, self.seq_q, value_dim, 1.0)
        leading = [n for n in (self.batch, self.heads_q) if n is not None]
        dlse = rng.standard_normal((*leading, self.seq_q))
        return dout, dlse.astype(np.float64 if self.dtype == "float64" else np.float32)

    def _draw(self, rng: np.random.Generator, heads: int | None, seq: int, dim: int, size: float) -> NDArray[Any]:
        leading = [n for n in (self.batch, heads) if n is not None]
        shape = (*leading, seq, dim)
        if self.layout == "bshd" and heads is not None:
            shape = (*leading[:-1], seq, heads, dim)
        return (size * rng.standard_normal(shape)).astype(numpy_dtype(self.dtype))

    def dense_mask(self) -> Bool | list[Bool]:
        """Give the mask as a bool array (seq_q, seq_kv), or a list of those, one per query head."""
        if isinstance(self.mask, Sequence):
            return [self._dense(one) for one in self.mask]
        return self._dense(self.mask)

    def _dense(self, mask: MaskLike) -> Bool:
        if isinstance(mask, Pattern):
            mask = ACSR.from_pattern(mask, self.seq_q, self.seq_kv)
        return mask.to_dense() if isinstance(mask, ACSR) else mask

    def options(self) -> dict[str, Any]:
        """Give the keyword arguments scale, layout and kv_lengths of the call; None where they are left out."""
        lengths = None if self.kv_lengths is None else np.array(self.kv_lengths, np.int64)
        return {"scale": self.scale, "layout": self.layout, "kv_lengths": lengths}

    def __repr__(self) -> str:
        shown = [f"{self.seq_q}, {self.seq_kv}, {_mask_text(self.mask)}"]
        for field in fields(self)[3:]:
            value = getattr(self, field.name)
            if value != field.default:
                shown.append(f"{field.name}={value!r}")
        return f"Problem({', '.join(shown)})"


def check_problem(problem: object) -> None:
    """Raise ArgumentTypeError for what is no problem."""
    if not isinstance(problem, Problem):
        raise ArgumentTypeError(
            f"problem wanted as a splat_numba.testing.Problem, got {kind(problem)}. Make one, such as "
            "Problem(64, 64, splat_numba.causal())."
        )


def _mask_text(mask: MaskLike | Sequence[MaskLike]) -> str:
    if isinstance(mask, Sequence):
        return f"[{', '.join(_mask_text(one) for one in mask)}]"
    if isinstance(mask, Pattern):
        return repr(mask)
    if isinstance(mask, ACSR):
        indptr, indices = mask.to_csr()
        return f"from_csr({indptr.tolist()}, {indices.tolist()}, {mask.shape})"
    if not mask.size:
        return f"np.zeros({mask.shape}, bool)"
    return f"np.array({mask.astype(int).tolist()}, bool)"
