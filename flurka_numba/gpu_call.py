"""One call on a GPU: arguments checked and made ready once; a call like an earlier one is a look-up and launches."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from flurka_numba.checks import (
    ARRAYS,
    Described,
    check_call,
    check_fits,
    check_kv_lengths,
    check_lengths_kind,
    result_shape,
)
from flurka_numba.feature_maps import FeatureMap
from flurka_numba.gpu_forward import PreparedForward, Shapes
from flurka_numba.gpu_omega import place_omega
from flurka_numba.gpu_plan import apply_traits, forward_plan
from flurka_numba.operands import import_call
from flurka_numba.problem import Call, Problem
from flurka_numba.targets.sm90.apply_shape import LARGEST_ROWS, LARGEST_THREAD, ApplyTraits
from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.gen.targets.sm90.shape import SHARED_BYTES
from splat_numba.runtime.arrays import export_array, on_gpu
from splat_numba.runtime.cuda.arrays import (
    Framework,
    GpuArray,
    check_gpu_out,
    check_operand_dtype,
    check_same_device,
    contiguous_strides,
    describe,
    describe_operand,
    framework_of,
    known_framework,
)
from splat_numba.runtime.cuda.copies import padded, padded_rows
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.lengths import place_device_lengths, place_host_lengths
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.runtime.cuda.tensor_map import Layout
from splat_numba.settings import current

LARGEST_READY = 256


@dataclass(frozen=True, slots=True)
class Ready:
    """A call but for its addresses."""

    prepared: PreparedForward | None  # None: the result is empty
    problem: Problem
    axes: int
    device: Device
    out_shape: tuple[int, ...]


_ready: OrderedDict[Hashable, Ready] = OrderedDict()
_lock = threading.Lock()


def attend(call: Call) -> Any:
    """Out, as an array of q's framework. Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(call.q, np.ndarray):
        return _attend_numpy(call)
    framework = framework_of(call.q) or known_framework("q", call.q)
    given = {name: getattr(call, name) for name in (*ARRAYS, "out") if getattr(call, name) is not None}
    ready, places = _look_up(call, given, framework)
    places.setdefault("proj_v", places.get("proj_k", 0))
    if call.method == "low_rank":
        return _attend_to_slots(call, ready, given, places, framework)
    result = call.out
    if result is None:
        result = framework.empty(ready.out_shape, ready.problem.dtype, call.q)
        places["out"] = framework.key(result)[0]
    _run(call, ready, given, places, framework)
    return result


def _run(call: Call, ready: Ready, given: Mapping[str, Any], places: dict[str, int], framework: Framework) -> None:
    """Launch on the stream that the arrays belong to."""
    if ready.prepared is None:
        return
    keep_omega: Any = None
    stream = framework.stream([array for name, array in given.items() if name != "out"], ready.device.ordinal)
    places["kv_lengths"], keep = _place_lengths(call, ready, framework, stream)
    if call.omega is not None:
        places["omega"], keep_omega = place_omega(call.omega, ready.device, framework, call.q, stream)
    scratch = ready.prepared.run(places, stream, framework, call.q)
    framework.finish(stream)
    del scratch, keep, keep_omega


def _attend_to_slots(
    call: Call, ready: Ready, given: Mapping[str, Any], places: dict[str, int], framework: Framework
) -> Any:
    """Low-rank attention: the slots are made as keys and values, to which every query attends."""
    import splat_numba

    problem = ready.problem
    slots = {}
    for name, dim in (("k_slots", problem.head_dim), ("v_slots", problem.value_dim)):
        shape = (problem.batch, problem.heads, problem.rank, padded(dim))[4 - ready.axes :]
        slots[name] = framework.empty(shape, problem.dtype, call.q)
        places[name] = framework.key(slots[name])[0]
    _run(call, ready, given, places, framework)
    k, v = (narrower(slots[name], dim) for name, dim in (("k_slots", problem.head_dim), ("v_slots", problem.value_dim)))
    return splat_numba.attention(call.q, k, v, splat_numba.full(), scale=problem.scale, backend="cuda", out=call.out)


def narrower(array: Any, dim: int) -> Any:
    """The first ``dim`` columns of padded rows."""
    if array.shape[-1] == dim:
        return array
    return array.narrow(dim) if isinstance(array, DeviceArray) else array[..., :dim]


def check_supported(problem: Problem) -> None:
    """Raise BackendError, ArgumentTypeError for what the GPU's texts have not."""
    check_operand_dtype("q", problem.dtype)
    if problem.method != "low_rank":
        _check_fits(problem, apply_traits(problem))


def _check_fits(problem: Problem, traits: ApplyTraits) -> None:
    if not traits.fits:
        raise BackendError(
            f"feature_map {problem.feature_map!r} wanted with what a GPU's multiprocessor holds, got "
            f"{problem.features} features for head_dim {problem.head_dim} and value_dim {problem.value_dim}: they take "
            f"{traits.shared_bytes >> 10} of {SHARED_BYTES >> 10} KiB of shared memory and about {traits.registers} of "
            f"{LARGEST_THREAD} registers, and rows of omega are at most {LARGEST_ROWS}. Give omega fewer rows, or "
            "backend='cpu' with arrays there."
        )


def _look_up(call: Call, given: Mapping[str, Any], framework: Framework) -> tuple[Ready, dict[str, int]]:
    """The call made ready, now or earlier, and the addresses of its arrays."""
    if call.out is not None or any(framework_of(one) is not framework for one in given.values()):
        ready, arrays = _make_ready(call, given, framework)
        return ready, {name: array.pointer for name, array in arrays.items()}
    places, kinds = zip(*map(framework.key, given.values()), strict=True)
    phi = call.feature_map if isinstance(call.feature_map, str | FeatureMap | None) else id(call.feature_map)
    rows = None if call.omega is None else tuple(np.shape(call.omega))
    key = (call.method, phi, rows, call.eps, call.scale, call.kv_lengths is None, framework, tuple(given), kinds)
    with _lock:
        found = _ready.get(key)
        if found is not None:
            _ready.move_to_end(key)
    if found is None:
        found, _ = _make_ready(call, given, framework)
        with _lock:
            _ready[key] = found
            if len(_ready) > LARGEST_READY:
                _ready.popitem(last=False)
    return found, dict(zip(given, places, strict=True))


def _make_ready(call: Call, given: Mapping[str, Any], framework: Framework) -> tuple[Ready, dict[str, GpuArray]]:
    """Check everything, plan, compile, and decide all that addresses do not change."""
    arrays = {name: describe_operand(name, one, framework) for name, one in given.items() if name != "out"}
    check_same_device(arrays)
    shapes: dict[str, Described] = dict(arrays)
    if call.omega is not None:
        shapes["omega"] = _Omega(tuple(np.shape(call.omega)))
    problem = check_call(call, shapes)
    check_supported(problem)
    axes, target = len(arrays["q"].shape), device(arrays["q"].device)
    out_shape = result_shape(arrays["q"], problem)
    out = GpuArray(0, out_shape, contiguous_strides(out_shape, 2), problem.dtype, target.ordinal, "")
    if "out" in given:
        out = describe("out", given["out"], framework)
        check_same_device({"q": arrays["q"], "out": out})
        check_fits("out", out, out_shape, problem.dtype)
        check_gpu_out(out, arrays)
        arrays["out"] = out
    if call.kv_lengths is not None:
        _check_lengths(call, problem, axes, framework)
    prepared = None
    if problem.batch * problem.heads * problem.seq_q:
        plan = forward_plan(problem, target.multiprocessors)
        prepared = PreparedForward(plan, Shapes(_layouts(problem, {**arrays, "out": out})), target, current())
    return Ready(prepared, problem, axes, target, out_shape), arrays


@dataclass(frozen=True, slots=True)
class _Omega:
    """What check_call wants to know of omega."""

    shape: tuple[int, ...]
    dtype: str = "float64"


def _layouts(problem: Problem, arrays: Mapping[str, GpuArray]) -> dict[str, Layout]:
    """Sizes and strides, with four axes, of all arrays that the stages read and write."""
    elsewhere = ("q", "out") if problem.method == "low_rank" else ()
    found = {name: _layout(array) for name, array in arrays.items() if name not in elsewhere}
    if problem.shared_proj:
        found["proj_v"] = found["proj_k"]
    return found


def _layout(array: GpuArray) -> Layout:
    missing = 4 - len(array.shape)
    sizes, strides = (1,) * missing + array.shape, (0,) * missing + array.strides
    return Layout(
        (sizes[0], sizes[1], sizes[2], sizes[3]), (strides[0], strides[1], strides[2], strides[3]), array.dtype
    )


def _check_lengths(call: Call, problem: Problem, axes: int, framework: Framework) -> None:
    """Key lengths of the host are checked in full, those on a GPU by shape and dtype: their values are not read."""
    if not on_gpu(call.kv_lengths):
        check_kv_lengths(call.kv_lengths, problem, axes)
        return
    found = describe("kv_lengths", call.kv_lengths, framework)
    check_lengths_kind(found.shape, found.dtype, found.dtype in ("int32", "int64"), problem.batch, axes)


def _place_lengths(call: Call, ready: Ready, framework: Framework, stream: int) -> tuple[int, Any]:
    """The address of the key lengths on the device, and what keeps them there."""
    if call.kv_lengths is None:
        return 0, None
    if not on_gpu(call.kv_lengths):
        lengths = check_kv_lengths(call.kv_lengths, ready.problem, ready.axes)
        return place_host_lengths(lengths, ready.device, stream), None
    _check_lengths(call, ready.problem, ready.axes, framework)
    return place_device_lengths(call.kv_lengths, ready.problem.batch, ready.device, framework, call.q, stream)


def _attend_numpy(call: Call) -> Any:
    """NumPy arrays: copied to the first GPU, and the result back. Rows are padded on the way, so nothing else is."""
    for name in ("k", "v", "proj_k", "proj_v", "omega", "kv_lengths", "out"):
        if on_gpu(getattr(call, name)):
            raise ArgumentTypeError(f"{name} wanted in CPU memory as q is, got a GPU array. Copy one of them.")
    operands = import_call(call)
    check_supported(operands.problem)
    target = device(0)
    copies: dict[str, Any] = {
        name: _upload(np.asarray(getattr(call, name)).view(np.uint16), operands.problem.dtype, target)
        for name in ARRAYS
        if getattr(call, name) is not None
    }
    result = attend(replace(call, out=None, backend="cuda", **copies))
    host = np.empty(result.shape, np.uint16)
    result.read(host)
    operands.out[...] = host[(None,) * (4 - host.ndim)]
    return call.out if call.out is not None else export_array(host, operands.problem.dtype, call.q)


def _upload(bits: Any, dtype: str, target: Device) -> DeviceArray:
    host = padded_rows(bits)
    array = DeviceArray(target, bits.shape, dtype, host.shape[-1])
    array.fill(host)
    return array
