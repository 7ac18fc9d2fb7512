"""One call on a GPU: arguments checked and made ready once; a call like an earlier one is a look-up and launches."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np

from flurka_numba.gpu.checks import check_arguments, check_out, place_lengths
from flurka_numba.gpu.composed.call import attend as compose
from flurka_numba.gpu.composed.plan import composes_forward
from flurka_numba.gpu.forward import PreparedForward
from flurka_numba.gpu.host_arrays import attend_numpy
from flurka_numba.gpu.omega import place_omega
from flurka_numba.gpu.plan import forward_plan, taking_input
from flurka_numba.heads import needs_queries, with_queries, with_views
from flurka_numba.problem import ITEMSIZE, Call, Problem
from splat_numba.arguments.results import result_shape
from splat_numba.runtime.cuda.arrays import GpuArray, contiguous_strides
from splat_numba.runtime.cuda.copies import padded
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import Framework, framework_of, known_framework, known_keys
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.runtime.cuda.tensor_map import Layout
from splat_numba.settings import current

LARGEST_READY = 256


@dataclass(frozen=True, slots=True)
class Ready:
    """A call but for its addresses. reach: bytes from each array's address to its first and past its last byte.
    composed: float32 arithmetic computes it, see composed/plan.py.
    """

    prepared: PreparedForward | None  # None: the result is empty
    problem: Problem
    axes: int
    device: Device
    out_shape: tuple[int, ...]
    reach: tuple[tuple[int, int], ...]
    composed: bool

    def apart(self, addresses: Sequence[int]) -> bool:
        """Whether the bytes of out, the last of the arrays, and those of the others are in separate ranges."""
        low, high = (addresses[-1] + end for end in self.reach[-1])
        for place, (first, last) in zip(addresses[:-1], self.reach[:-1], strict=True):
            if low < place + last and place + first < high:
                return False
        return True


_ready: OrderedDict[Hashable, Ready] = OrderedDict()
_lock = threading.Lock()


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
    if ready.composed:
        return compose(with_views(call), ready.problem, framework)
    if call.method == "low_rank":
        return _attend_to_slots(call, ready, given, addresses, framework)
    q, k, v, *rest = addresses
    if call.out is None:
        result = framework.empty(ready.out_shape, ready.problem.dtype, call.q)
        out = framework.address(result)
    else:
        result, out = call.out, rest.pop()
    if call.w_q is not None:
        places = (0, k, v, 0, 0, out, 0, 0, q, *rest)
    else:
        proj_k, proj_v = (rest[0], rest[-1]) if rest else (0, 0)
        places = (q, k, v, proj_k, proj_v, out, 0, 0, 0, 0)
    _run(call, ready, given, places, framework)
    return result


def _run(call: Call, ready: Ready, given: Sequence[Any], places: tuple[int, ...], framework: Framework) -> None:
    """Launch on the stream that the arrays belong to. places: addresses of OPERANDS."""
    if ready.prepared is None:
        return
    stream = framework.stream(given, ready.device.ordinal)
    lengths, keep = place_lengths(call, ready.problem, ready.device, framework, stream)
    omega, keep_omega = 0, None
    if call.omega is not None:
        omega, keep_omega = place_omega(call.omega, ready.device, framework, call.q, stream)
    scratch = ready.prepared.run(places, lengths, omega, stream, framework, call.q)
    framework.finish(stream)
    del scratch, keep, keep_omega


def _attend_to_slots(
    call: Call, ready: Ready, given: Sequence[Any], addresses: Sequence[int], framework: Framework
) -> Any:
    """Low-rank attention: the slots are made as keys and values, to which every query attends."""
    slots = _make_slots(call, ready, given, addresses, framework)
    attention, mask = _dense_attention()
    return attention(call.q, *slots, mask, scale=ready.problem.scale, backend="cuda", out=call.out)


def ready_slots(call: Call, framework: Framework) -> Ready:
    """What write_slots() asks for, of a FLuRKA call."""
    call = replace(call, method="low_rank", feature_map=None, omega=None, eps=None, out=None)
    given = [one for one in (call.q, call.k, call.v, call.proj_k, call.proj_v) if one is not None]
    return _look_up(call, given, framework)[0]


def write_slots(
    call: Call, ready: Ready, given: Sequence[Any], addresses: Sequence[int], places: Sequence[int],
    framework: Framework,
) -> None:  # fmt: skip
    """Write E k and F v, with rows padded to 16 bytes, at two places. addresses: of the call's arrays, ``given``."""
    _, k, v, proj_k, *rest = addresses
    proj_v = proj_k if call.proj_v is None else rest[0]
    _run(call, ready, given, (0, k, v, proj_k, proj_v, 0, *places, 0, 0), framework)


def _make_slots(
    call: Call, ready: Ready, given: Sequence[Any], addresses: Sequence[int], framework: Framework
) -> list[Any]:
    problem, slots, places = ready.problem, [], []
    dims = problem.head_dim, problem.value_dim
    for dim in dims:
        shape = (problem.batch, problem.heads, problem.rank, padded(dim))[4 - ready.axes :]
        slots.append(framework.empty(shape, problem.dtype, call.q))
        places.append(framework.address(slots[-1]))
    write_slots(call, ready, given, addresses, places, framework)
    return [narrower(array, dim) for array, dim in zip(slots, dims, strict=True)]  # JAX copies: not before the launches


@cache
def _dense_attention() -> tuple[Callable[..., Any], Any]:
    """splat_numba's attention, and one mask for all calls: by its identity a repeated call is found."""
    import splat_numba

    return splat_numba.attention, splat_numba.full()


def narrower(array: Any, dim: int) -> Any:
    """The first ``dim`` columns of padded rows."""
    if array.shape[-1] == dim:
        return array
    return array.narrow(dim) if isinstance(array, DeviceArray) else array[..., :dim]


def _look_up(call: Call, given: Sequence[Any], framework: Framework) -> tuple[Ready, Sequence[int]]:
    """The call made ready, now or earlier, and the addresses of its arrays in their order."""
    known = known_keys(given, framework)
    if known is None:
        ready, arrays = _make_ready(call, framework)
        return ready, [array.pointer for array in arrays.values()]
    addresses, kinds = known
    rows = None if call.omega is None else tuple(np.shape(call.omega))
    key = (call.method, call.feature_map, rows, call.eps, call.scale, call.kv_lengths is None, call.out is None,
           call.heads, call.w_q is None, framework, kinds)  # fmt: skip
    try:
        with _lock:
            found = _ready.get(key)
            if found is not None:
                _ready.move_to_end(key)
    except TypeError:  # an option of a wrong type, which the checks name
        found = None
    if found is None:
        found, _ = _make_ready(call, framework)
        with _lock:
            _ready[key] = found
            if len(_ready) > LARGEST_READY:
                _ready.popitem(last=False)
    elif call.out is not None and not found.apart(addresses):
        # Ranges meet, but perhaps no element does: the full check decides.
        check_out(with_views(call), found.problem, framework)
    return found, addresses


def _make_ready(call: Call, framework: Framework) -> tuple[Ready, dict[str, GpuArray]]:
    """Check everything, plan, compile, and decide all that addresses do not change. Its problem has no model_dim where
    a layer's queries are to be made first.
    """
    problem, arrays = check_arguments(with_views(call), framework)
    if call.w_q is not None:
        problem = taking_input(problem, call.q.shape[-1])
    axes, target = len(arrays["q"].shape), device(arrays["q"].device)
    out_shape = result_shape(arrays["q"], problem)
    fresh = GpuArray(0, out_shape, contiguous_strides(out_shape, 2), problem.dtype, target.ordinal, "")
    out = arrays.get("out", fresh)
    prepared, composed = None, composes_forward(problem)
    if not composed and not needs_queries(call, problem) and problem.batch * problem.heads * problem.seq_q:
        plan = forward_plan(problem, target.multiprocessors)
        prepared = PreparedForward(plan, _layouts(problem, {**arrays, "out": out}), target, current())
    reach = tuple(_reach(array) for array in arrays.values())
    return Ready(prepared, problem, axes, target, out_shape, reach, composed), arrays


def _reach(array: GpuArray) -> tuple[int, int]:
    if 0 in array.shape:
        return 0, 0
    steps = [step * (size - 1) for step, size in zip(array.strides, array.shape, strict=True)]
    return sum(step for step in steps if step < 0), sum(step for step in steps if step > 0) + ITEMSIZE[array.dtype]


def _layouts(problem: Problem, arrays: Mapping[str, GpuArray]) -> dict[str, Layout]:
    """Sizes and strides, with four axes, of all arrays that the stages read and write."""
    elsewhere = ("q", "out") if problem.method == "low_rank" else ()
    found = {name: layout_of(array) for name, array in arrays.items() if name not in elsewhere}
    if problem.model_dim:
        found["x"] = input_layout(found.pop("q"))
    if problem.shared_proj:
        found["proj_v"] = found["proj_k"]
    return found


def input_layout(queries: Layout) -> Layout:
    """Of a layer's input (batch, 1, seq, model_dim), from the one with an axis of heads."""
    batch, heads, seq, dim = queries.sizes
    to_batch, _, to_row, step = queries.strides
    return Layout((batch, 1, seq, heads * dim), (to_batch, 0, to_row, step), queries.dtype)


def layout_of(array: GpuArray) -> Layout:
    """Sizes and strides with four axes."""
    missing = 4 - len(array.shape)
    sizes, strides = (1,) * missing + array.shape, (0,) * missing + array.strides
    return Layout(
        (sizes[0], sizes[1], sizes[2], sizes[3]), (strides[0], strides[1], strides[2], strides[3]), array.dtype
    )
