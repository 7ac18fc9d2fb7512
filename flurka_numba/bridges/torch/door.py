"""The way of a call in which PyTorch has a hand: to autograd in eager mode, or to an operator that everything sees."""

from __future__ import annotations

from typing import Any

import torch

from flurka_numba.backends import choose_executor
from flurka_numba.bridges.torch.autograd import Eager
from flurka_numba.bridges.torch.given import as_tensor, check_omega
from flurka_numba.bridges.torch.names import map_name
from flurka_numba.checks import ARRAYS
from flurka_numba.feature_maps import check_eps
from flurka_numba.problem import Call
from splat_numba.arguments.options import scale_number
from splat_numba.bridges.torch.door import check_not_nested, refuse_out, under_autocast
from splat_numba.bridges.torch.functions import check_local, is_differentiated, wants_gradient
from splat_numba.bridges.torch.watch import is_seen_as_a_whole


def attend(call: Call) -> Any:
    """The result of a call whose q, at least, is a tensor."""
    given = [one for one in (call.q, call.k, call.v, call.proj_k, call.proj_v) if one is not None]
    if not all([isinstance(one, torch.Tensor) for one in given]):  # noqa: C419 - Dynamo reads lists
        return choose_executor(call).attend(call)
    cast = [*under_autocast(*given), None, None]  # q, k and v, then the projections, which may be missing
    if call.proj_k is None:
        cast = [*cast[:3], None, *cast[3:]]
    if is_seen_as_a_whole(torch, *given):
        return _whole(call, cast[:5])
    if is_differentiated(*given):
        if call.out is not None:
            refuse_out()
        check_omega(call.omega)
        return Eager.apply(call, *cast[:5])
    call.q, call.k, call.v, call.proj_k, call.proj_v = cast[:5]  # nobody else has this call
    return choose_executor(call).attend(call)


def _whole(call: Call, arrays: list[Any]) -> Any:
    """By the operator."""
    check_not_nested(list(zip(ARRAYS, arrays, strict=True)))
    eps, scale = call.eps, call.scale
    if torch.compiler.is_compiling():
        from flurka_numba.bridges.torch.in_graphs import fits_a_graph, outside, whole

        if call.out is not None or not fits_a_graph(call.feature_map):
            return outside(call)
        eps, scale = (None if one is None else float(one) for one in (eps, scale))  # NumPy's numbers are arrays there
    else:
        check_local(*arrays, names=ARRAYS)
        eps, scale = check_eps(eps), None if scale is None else scale_number(scale)
        if call.out is not None:
            refuse_out()
        if wants_gradient(*[one for one in arrays if one is not None]):
            from flurka_numba.bridges.torch.autograd import whole
        else:
            whole = torch.ops.flurka_numba.attention
    options = call.method, map_name(call.feature_map), eps, scale, call.backend, call.target
    return whole(*arrays, as_tensor(call.omega), as_tensor(call.kv_lengths), *options)
