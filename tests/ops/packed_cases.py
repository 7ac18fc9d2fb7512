"""Cases of the packed operators and of their gradients: masks with arrays, dense forms, bounds."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st

from splat_numba import reference, sddmm_vjp, softmax_vjp, spmm_vjp
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern, sinks, strided, window
from splat_numba.gen.packed.problem import RunTable
from splat_numba.testing import lengths, masks, numpy_dtype
from splat_numba.testing.error_bound import Roundoff

MIXED = window(5, 3) | strided(7) | sinks(2)  # several runs a row, of several steps
WIDE = MIXED | window(20, 14)  # rows of whole vectors and a rest, at every width
CATALOGUE = {"window": window(20, 9), "strided": strided(3), "mixed": MIXED}
DIM = 20  # whole vectors and a rest, at every width


@dataclass(frozen=True)
class Case:
    """One mask and arrays for all three operators. heads None: two axes; batch None: none before the heads."""

    acsr: ACSR
    dtype: str = "float32"
    batch: int | None = 2
    heads: int | None = 4
    heads_kv: int = 2
    head_dim: int = DIM
    value_dim: int = DIM
    seed: int = 0

    def arrays(self):
        rng = np.random.default_rng(self.seed)
        seq_q, seq_kv = self.acsr.shape

        def draw(heads, *shape):
            leading = [] if self.heads is None else [heads] if self.batch is None else [self.batch, heads]
            return rng.standard_normal([*leading, *shape]).astype(numpy_dtype(self.dtype))

        q, k = draw(self.heads, seq_q, self.head_dim), draw(self.heads_kv, seq_kv, self.head_dim)
        return q, k, draw(self.heads_kv, seq_kv, self.value_dim), draw(self.heads, self.acsr.nnz)


def pairs(acsr):
    """(rows, columns) of the packed values."""
    nnz = RunTable.of(acsr).slot_ptr
    return np.repeat(np.arange(acsr.shape[0]), np.diff(nnz)), acsr.columns()


def pack(dense, acsr):
    return dense[(..., *pairs(acsr))]


def unpack(values, acsr):
    values = np.asarray(values, np.float64)
    dense = np.zeros((*values.shape[:-1], *acsr.shape))
    dense[(..., *pairs(acsr))] = values
    return dense


def rounded(wanted, computed, loss):
    """The allowed error after rounding to the arrays' dtype."""
    return computed + loss.result * (np.abs(wanted) + computed) + loss.tiny


def softmax_bound(values, acsr):
    """Dense weights, and the allowed errors. Weights are exp(x - top): the exponent is wrong by 3 u |x - top|, exp by
    8 u, and n of them are summed.
    """
    mask, loss = acsr.to_dense(), Roundoff.of(values.dtype)
    scores = unpack(values, acsr)
    wanted = reference.softmax(scores, mask)
    top = np.where(mask, scores, -np.inf).max(axis=-1, initial=-np.inf, keepdims=True)
    depth = np.where(mask, top - scores, 0.0)
    moved = np.expm1(3 * loss.unit * depth)
    drift = (wanted * moved).sum(axis=-1, keepdims=True)
    computed = wanted * (moved + drift + loss.unit * (mask.sum(axis=-1) + 20)[:, None])
    return wanted, rounded(wanted, computed, loss)


def stored(mask, seq_q, seq_kv):
    """Any form as an ACSR whose runs all have step 1, or several steps: others would each be a kernel of their own."""
    acsr = ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else mask
    acsr = acsr if isinstance(acsr, ACSR) else ACSR.from_dense(acsr)
    if RunTable.of(acsr).one_step in {1, None}:
        return acsr
    dense = acsr.to_dense()
    dense[0, :3] = True
    return ACSR.from_dense(dense)


@st.composite
def cases(draw):
    seq_q, seq_kv = draw(lengths()), draw(lengths())
    acsr = stored(draw(masks(seq_q, seq_kv)), seq_q, seq_kv)
    heads_kv = draw(st.sampled_from([1, 2, 3]))
    heads = draw(st.sampled_from([None, 1, 2])) if heads_kv > 1 else draw(st.sampled_from([None, 1, 3]))
    return Case(
        acsr,
        "float32",
        draw(st.sampled_from([None, 1, 2, 0])),
        None if heads is None else heads * heads_kv,
        heads_kv,
        seed=draw(st.integers(0, 999)),
    )


def views(x):
    """The same numbers in other memory layouts."""
    yield "reversed", x[..., ::-1].copy()[..., ::-1]
    yield "every second number", np.repeat(x, 2, axis=-1)[..., ::2]
    yield "Fortran order", np.asfortranarray(x)
    yield "last axes swapped in memory", np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    yield "part of a larger array", np.pad(x, [(0, 0)] * (x.ndim - 2) + [(2, 3), (1, 4)])[..., 2:-3, 1:-4]


CHOSEN = ACSR.from_pattern(WIDE, 41, 37)


def gradient_of(result, seed=7):
    """A drawn gradient of a result."""
    rng = np.random.default_rng(seed)
    return rng.standard_normal(result.shape).astype(result.dtype)


def listed(found):
    """The gradients that a vjp gave, one or two, as a tuple."""
    return found if isinstance(found, tuple) else (found,)


def all_gradients(case, arrays=None, changes=None):
    """Of all operators: (dq, dk), dvalues, (dvalues, dv) in one list."""
    q, k, v, values = arrays or case.arrays()
    calls = sddmm_vjp(q, k, case.acsr), softmax_vjp(values, case.acsr), spmm_vjp(values, v, case.acsr)
    changes = changes or [gradient_of(np.asarray(result)) for result, _ in calls]
    found = [vjp(change) for (_, vjp), change in zip(calls, changes, strict=True)]
    return [*found[0], found[1], *found[2]]
