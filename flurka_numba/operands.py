"""CPU arrays in and results out: the caller's arrays as NumPy views, and ours as the caller's kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.checks import ARRAYS, check_call, check_no_autograd
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.layouts import with_leading, without_leading
from splat_numba.arguments.options import check_kv_lengths
from splat_numba.arguments.results import check_fits, place_result, result_shape
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.halves import narrow, widen
from splat_numba.runtime.arrays import Array, export_array, import_array


@dataclass(frozen=True, slots=True)
class Operands:
    """One call's arrays, 16-bit ones as uint16.

    q, k, v, out: (batch, heads, seq, dim) views at any strides. proj_k, proj_v: (heads or 1, rank, seq_kv) views, None
    where absent. omega: (rows, head_dim), contiguous, in compute dtype. kv_lengths: (batch,). axes: of the caller's q.
    """

    problem: Problem
    q: NDArray[Any]
    k: NDArray[Any]
    v: NDArray[Any]
    proj_k: NDArray[Any] | None
    proj_v: NDArray[Any] | None
    omega: NDArray[Any] | None
    kv_lengths: NDArray[np.int64]
    out: NDArray[Any]
    axes: int

    @property
    def arrays(self) -> dict[str, Any]:
        """The inputs by name, None where absent, less omega."""
        names = ("q", "k", "v", "proj_k", "proj_v", "kv_lengths")
        return {name: getattr(self, name) for name in names}


def import_call(call: Call) -> Operands:
    """The arrays of a call, checked, with a fresh ``out`` unless one was given; nothing is written.

    Raises ArgumentError, ArgumentTypeError, BackendError.
    """
    check_no_autograd(call)
    arrays = {
        name: import_array(name, getattr(call, name))
        for name in (*ARRAYS, "omega")
        if getattr(call, name) is not None or name in ("q", "k", "v")
    }
    problem = check_call(call, arrays)
    axes = len(arrays["q"].shape)
    written = place_result(call.out, result_shape(arrays["q"], problem), problem.dtype, arrays)
    q, k, v = (with_leading(arrays[name].bits, 4) for name in ("q", "k", "v"))
    proj_k, proj_v = (with_leading(arrays[name].bits, 3) if name in arrays else None for name in ("proj_k", "proj_v"))
    return Operands(
        problem=problem,
        q=q,
        k=k,
        v=v,
        proj_k=proj_k,
        proj_v=proj_v,
        omega=_widen_omega(arrays["omega"], problem) if "omega" in arrays else None,
        kv_lengths=check_kv_lengths(call.kv_lengths, problem, axes),
        out=with_leading(written.array.bits, 4),
        axes=axes,
    )


def _widen_omega(omega: Array, problem: Problem) -> NDArray[Any]:
    return np.ascontiguousarray(widen(omega.bits, omega.dtype), problem.compute_dtype)


def import_dout(call: Call, operands: Operands, dout: Any) -> NDArray[Any]:
    """The gradient of out as a (batch, heads, seq_q, value_dim) view, 16-bit types as uint16. Raises ArgumentError."""
    given = import_array("dout", dout)
    shape = (*np.shape(call.q)[:-1], operands.problem.value_dim)
    check_fits("dout", given, shape, operands.problem.dtype)
    return with_leading(given.bits, 4)


def export_out(call: Call, operands: Operands) -> Any:
    """The caller's out, or ours as q's kind of array."""
    if call.out is not None:
        return call.out
    return export_array(without_leading(operands.out, operands.axes), operands.problem.dtype, call.q)


def export_gradients(call: Call, operands: Operands, gradients: Mapping[str, NDArray[Any]]) -> tuple[Any, ...]:
    """Gradients of q, k, v, proj_k, proj_v, each of its argument's kind, shape and dtype; None where there is none.

    gradients: contiguous, in compute dtype, with the axes of the operands; rounded here, once.
    """
    return tuple(
        _export_gradient(gradients[name], getattr(call, name), operands.problem) if name in gradients else None
        for name in ARRAYS
    )


def _export_gradient(gradient: NDArray[Any], like: Any, problem: Problem) -> Any:
    bits = narrow(gradient, problem.dtype) if ITEMSIZE[problem.dtype] == 2 else gradient
    return export_array(without_leading(bits, len(np.shape(like))), problem.dtype, like)
