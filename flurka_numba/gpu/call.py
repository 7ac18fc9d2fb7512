"""One call on a GPU: arguments checked and made ready once; a call like an earlier one is a look-up and launches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flurka_numba.gpu.checks import check_arguments, check_out
from flurka_numba.gpu.choice import HOPPER, choose_target
from flurka_numba.gpu.forward import forward_recording, in_place
from flurka_numba.gpu.host_arrays import attend_numpy
from flurka_numba.gpu.omega import place_omega
from flurka_numba.gpu.plan import taking_input
from flurka_numba.heads import needs_queries, with_queries, with_views
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.gpu_arrays import place_lengths, tensor_of
from splat_numba.arguments.results import result_shape
from splat_numba.gen.schedules.schedule import Schedule
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.runtime.cuda.arrays import GpuArray, Reach, apart, reach_of
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import Framework, framework_of, known_framework, known_keys
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.recent import REMEMBERED, Recent
from splat_numba.runtime.tensors import mark_written
from splat_numba.settings import Settings, current


@dataclass(frozen=True, slots=True)
class ReadyForward:
    """A call but for its addresses. reach: of its arrays, out last, see reach_of()."""

    call: ReadyCall
    problem: Problem
    axes: int
    device: Device
    out_shape: tuple[int, ...]
    reach: tuple[Reach, ...]


_ready: Recent[ReadyForward] = Recent(REMEMBERED)


def attend(call: Call) -> Any:
    """Out, as an array of q's framework. Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(call.q, np.ndarray):
        return attend_numpy(with_views(with_queries(call)), attend)
    framework = framework_of(call.q) or known_framework("q", call.q)
    given = [call.q, call.k, call.v]
    given += [one for one in (call.proj_k, call.proj_v, call.w_q, call.out) if one is not None]
    ready, addresses = _look_up(call, given, framework)
    if needs_queries(call, ready.problem):
        return attend(with_queries(call))
    if call.out is not None:
        mark_written(call.out)
        _run(call, ready, given, addresses, (), framework)
        return call.out
    result = framework.empty(ready.out_shape, ready.problem.dtype, call.q)
    _run(call, ready, given, addresses, (framework.address(result),), framework)
    return result


def _run(
    call: Call, ready: ReadyForward, given: Sequence[Any], addresses: Sequence[int], outputs: Sequence[int],
    framework: Framework,
) -> None:  # fmt: skip
    """Launch on the stream that the arrays belong to. outputs: addresses of what the call makes for its results."""
    stream = framework.stream(given, ready.device.ordinal)
    between, keep = place_extras(call, ready.problem, ready.device, framework, stream, ready.call.settings)
    scratch = ready.call.run((*addresses, *between.values(), *outputs), stream, framework, call.q)
    framework.finish(stream)
    del scratch, keep


def place_extras(
    call: Call, problem: Problem, gpu: Device, framework: Framework, stream: int, settings: Settings
) -> tuple[dict[str, int], list[Any]]:
    """The addresses of key lengths and omega, of those that there are, by name, and what keeps them there.
    settings: those of the call's kernels.
    """
    places: dict[str, int] = {}
    keep = []
    if call.kv_lengths is not None:
        axes = len(call.q.shape)
        place, held = place_lengths(call.kv_lengths, problem, axes, gpu, framework, call.q, stream, settings)
        places["kv_lengths"] = place
        keep.append(held)
    if call.omega is not None:
        place, held = place_omega(call.omega, gpu, framework, call.q, stream, settings)
        places["omega"] = place
        keep.append(held)
    return places, keep


def _look_up(call: Call, given: Sequence[Any], framework: Framework) -> tuple[ReadyForward, Sequence[int]]:
    """The call made ready, now or earlier, and the addresses of its arrays in their order."""
    known = known_keys(given, framework)
    if known is None:
        ready, arrays = _make_ready(call, framework)
        return ready, [array.pointer for array in arrays.values()]
    addresses, kinds = known
    rows = None if call.omega is None else tuple(np.shape(call.omega))
    key = (call.method, call.feature_map, rows, call.eps, call.scale, call.kv_lengths is None, call.out is None,
           call.heads, call.w_q is None, call.target, framework, kinds)  # fmt: skip
    try:
        found = _ready.find(key)
    except TypeError:  # an option of a wrong type, which the checks name
        found = None
    if found is None:
        found = _ready.keep(key, _make_ready(call, framework)[0])
    elif call.out is not None and not apart(addresses, found.reach):
        # Ranges meet, but perhaps no element does: the full check decides.
        check_out(with_views(call), found.problem, framework)
    return found, addresses


def _make_ready(call: Call, framework: Framework) -> tuple[ReadyForward, dict[str, GpuArray]]:
    """Check everything, plan, compile, and decide all that addresses do not change. Its problem has no model_dim where
    a layer's queries are to be made first.
    """
    problem, arrays = check_arguments(with_views(call), framework)
    axes, gpu = len(arrays["q"].shape), device(arrays["q"].device)
    target = choose_target(call.target, problem, gpu.as_planned).chosen
    if call.w_q is not None and target == HOPPER:
        problem = taking_input(problem, call.q.shape[-1])
    operands = operands_of(problem, arrays)

    def schedule_for(copied: frozenset[str]) -> Schedule:
        return forward_recording(problem, gpu.as_planned, operands, copied, {"out": axes}, target).schedule

    ready = ReadyCall(in_place(operands, target), schedule_for, gpu, current())
    reach = tuple(reach_of(array) for array in arrays.values())
    return ReadyForward(ready, problem, axes, gpu, result_shape(arrays["q"], problem), reach), arrays


def operands_of(problem: Problem, arrays: Mapping[str, GpuArray]) -> dict[str, Tensor]:
    """Sizes and strides, with four axes, of a call's arrays, by name: projections as (1, heads or 1, rank, seq_kv), a
    layer's input as (batch, 1, seq, model_dim).
    """
    found = {name: tensor_of(name, array) for name, array in arrays.items()}
    if problem.model_dim:
        found["q"] = _input_of(found["q"])
    return found


def _input_of(queries: Tensor) -> Tensor:
    """A layer's input from the view of it with an axis of heads."""
    batch, heads, seq, dim = queries.sizes
    to_batch, _, to_row, step = queries.strides
    return Tensor((batch, 1, seq, heads * dim), (to_batch, 0, to_row, step), queries.dtype, queries.buffer)
