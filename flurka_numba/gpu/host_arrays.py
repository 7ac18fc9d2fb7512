"""NumPy arrays on a GPU: copied to the first one, and results back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from flurka_numba.checks import ARRAYS
from flurka_numba.gpu.checks import check_supported
from flurka_numba.operands import Operands, import_call, import_dout
from flurka_numba.problem import Call
from splat_numba.errors import ArgumentTypeError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.runtime.arrays import export_array, import_array, on_gpu
from splat_numba.runtime.cuda.copies import padded_rows
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.memory import DeviceArray


def attend_numpy(call: Call, attend: Callable[[Call], Any]) -> Any:
    """Out in CPU memory. attend: for arrays on a GPU."""
    operands, there = _to_gpu(call)
    host = _read(attend(there), operands)
    operands.out[...] = host[(None,) * (4 - host.ndim)]
    return call.out if call.out is not None else export_array(host, operands.problem.dtype, call.q)


def attend_vjp_numpy(
    call: Call, attend_vjp: Callable[[Call], tuple[Any, Callable[[Any], tuple[Any, ...]]]]
) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
    """(out, the function from dout to gradients), all in CPU memory. attend_vjp: for arrays on a GPU."""
    operands, there = _to_gpu(call)
    dtype = operands.problem.dtype
    found, pull = attend_vjp(there)
    host = _read(found, operands)
    operands.out[...] = host[(None,) * (4 - host.ndim)]

    def vjp(dout: Any) -> tuple[Any, ...]:
        bits = import_dout(call, operands, dout).reshape(host.shape)
        gradients = pull(_upload(bits, dtype, found.device))
        return tuple(None if one is None else export_array(_read(one, operands), dtype, call.q) for one in gradients)

    return call.out if call.out is not None else export_array(host, dtype, call.q), vjp


def _to_gpu(call: Call) -> tuple[Operands, Call]:
    """The call checked, and with copies in place of its arrays."""
    for name in ("k", "v", "proj_k", "proj_v", "omega", "kv_lengths", "out"):
        if on_gpu(getattr(call, name)):
            raise ArgumentTypeError(f"{name} wanted in CPU memory as q is, got a GPU array. Copy one of them.")
    operands = import_call(call)
    check_supported(operands.problem)
    target, dtype = device(0), operands.problem.dtype
    copies: dict[str, Any] = {
        name: _upload(import_array(name, getattr(call, name)).bits, dtype, target)
        for name in ARRAYS
        if getattr(call, name) is not None
    }
    return operands, replace(call, out=None, backend="cuda", **copies)


def _upload(numbers: Any, dtype: str, target: Device) -> DeviceArray:
    """16-bit numbers with padded rows, so that nothing is copied again."""
    host = padded_rows(numbers.view(np.uint16)) if ITEMSIZE[dtype] == 2 else np.ascontiguousarray(numbers)
    array = DeviceArray(target, numbers.shape, dtype, host.shape[-1])
    array.fill(host)
    return array


def _read(array: DeviceArray, operands: Operands) -> Any:
    host = np.empty(array.shape, np.uint16 if ITEMSIZE[operands.problem.dtype] == 2 else operands.problem.dtype)
    array.read(host)
    return host
