"""One call on a GPU: arguments checked and made ready once; a call like an earlier one is a look-up and a launch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.gpu_arrays import check_call_lengths, tensor_of
from splat_numba.arguments.gradients import lse_shape
from splat_numba.arguments.options import check_kv_lengths, check_scale
from splat_numba.arguments.results import check_fits, result_shape
from splat_numba.errors import ArgumentTypeError
from splat_numba.executors.cpu.operands import check_operands, import_operands, prepare_out
from splat_numba.executors.executor import Again, Recipe
from splat_numba.executors.gpu.alike import Alike, ReadyArrays
from splat_numba.executors.gpu.parts import heads_passes, target_of
from splat_numba.gen.schedules.schedule import Schedule
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.registry import check_taken
from splat_numba.gen.targets.target import GpuTarget, HeadsPass, attention_schedule
from splat_numba.runtime.arrays import Array, export_array, on_gpu
from splat_numba.runtime.cuda.arrays import (
    GpuArray,
    apart,
    check_gpu_out,
    check_same_device,
    contiguous_array,
    reach_of,
)
from splat_numba.runtime.cuda.copies import padded_rows
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import (
    Framework,
    describe,
    describe_operand,
    framework_of,
    known_framework,
)
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.tensors import mark_written
from splat_numba.settings import current


@dataclass(frozen=True, slots=True)
class ReadyAttention(ReadyArrays):
    """A forward call. make_out, make_lse: of Framework.maker(); reach: of q, k, v and out, given or not."""

    make_out: Callable[[Any], Any]
    make_lse: Callable[[Any], Any]
    needs_lse: bool


_ready: Alike[ReadyAttention] = Alike(512)


def attend(recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
    """Out, or (out, lse), as arrays of q's framework. Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(q, np.ndarray):
        return _attend_numpy(recipe, q, k, v, kv_lengths, out, return_lse)
    framework = framework_of(q) or known_framework("q", q)
    ready, places = _look_up(recipe, q, k, v, kv_lengths, out, framework)
    if out is None:
        result = ready.make_out(q)
        target = framework.address(result)
    else:
        result, target = out, places[3]
        mark_written(out)
    lse, lse_place = None, 0
    if return_lse or ready.needs_lse:
        lse = ready.make_lse(q)
        lse_place = framework.address(lse)
    stream = framework.stream((q, k, v), ready.device.ordinal)
    lengths, keep = (0, None) if kv_lengths is None else ready.place_lengths(kv_lengths, framework, q, stream)
    scratch = ready.call.run((*places[:3], target, lse_place, lengths), stream, framework, q)
    framework.finish(stream)
    del scratch, keep
    return (result, lse) if return_lse else result


def attend_again(recipe: Recipe, arrays: tuple[Any, ...], return_lse: bool) -> Again | None:
    """Executor.attend_again(): what attend() does once it has found its ready call."""
    framework = framework_of(arrays[0])
    question = None if framework is None or recipe.identity is None else framework.likeness(arrays)
    if framework is None or question is None:
        return None
    q, k, v = arrays
    ready, _ = _look_up(recipe, q, k, v, None, None, framework)
    address, stream, run = framework.address, framework.stream, ready.call.run
    make_out, ordinal = ready.make_out, ready.device.ordinal
    make_lse = ready.make_lse if return_lse or ready.needs_lse else None

    def again(others: tuple[Any, ...]) -> tuple[Any, Any] | None:
        places = question(others)
        if places is None:
            return None
        q, lse, to_lse = others[0], None, 0
        out = make_out(q)
        if make_lse is not None:
            to_lse = address(lse := make_lse(q))
        run((*places, address(out), to_lse, 0), stream(others, ordinal), framework, q)
        return out, lse

    return again


def _look_up(
    recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, framework: Framework
) -> tuple[ReadyAttention, list[int]]:
    """The call made ready, now or earlier, and the addresses of q, k, v and, where it is given, out."""
    given = (q, k, v) if out is None else (q, k, v, out)
    identity, known = recipe.identity, None
    if identity is not None:
        owner = (framework, *map(id, identity), recipe.layout, recipe.scale, kv_lengths is None, len(given))
        known = _ready.find(owner, given, framework)
    if known is None:
        ready, arrays = _make_ready(recipe, q, k, v, kv_lengths, out, framework)
        return ready, [array.pointer for array in arrays.values()]
    found, places, key = known
    if found is None:
        found = _ready.keep(key, _make_ready(recipe, q, k, v, kv_lengths, out, framework)[0])
    elif out is not None and not apart(places, found.reach):
        _describe_all(q, k, v, out, framework)  # ranges meet, but perhaps no element does: the full check decides
    return found, places


def _describe_all(q: Any, k: Any, v: Any, out: Any, framework: Framework) -> dict[str, GpuArray]:
    """The arrays of a call, checked one by one and out against the others."""
    arrays = {name: describe_operand(name, array, framework) for name, array in (("q", q), ("k", k), ("v", v))}
    check_same_device(arrays)
    if out is None:
        return arrays
    written = describe("out", out, framework)
    check_same_device({"q": arrays["q"], "out": written})
    if written.shape == (*arrays["q"].shape[:-1], arrays["v"].shape[-1]) and written.dtype == arrays["q"].dtype:
        check_gpu_out(written, arrays)
    return {**arrays, "out": written}


def _make_ready(
    recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, framework: Framework
) -> tuple[ReadyAttention, dict[str, GpuArray]]:
    """Check everything, plan, compile, and decide all that addresses do not change."""
    arrays = _describe_all(q, k, v, out, framework)
    inputs = {name: arrays[name] for name in ("q", "k", "v")}
    problem = check_operands(inputs, recipe.layout)
    check_taken("q", problem, recipe.executor.target)
    scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
    axes = len(arrays["q"].shape)
    out_shape = result_shape(arrays["q"], problem)
    if out is not None:
        check_fits("out", arrays["out"], out_shape, problem.dtype)
    if kv_lengths is not None:
        check_call_lengths(kv_lengths, problem, axes, framework)
    parts = recipe.parts_for(problem, scale, current(), ragged=kv_lengths is not None)
    gpu = device(arrays["q"].device)
    everything = {**inputs, "out": arrays.get("out", contiguous_array(out_shape, problem.dtype, gpu.ordinal))}
    tensors = {name: tensor_of(name, one, recipe.layout) for name, one in everything.items()}
    passes = [one for part in parts for one in heads_passes(part, problem)]
    call = ready_attention(target_of(parts), passes, tensors, scale, gpu, keep=recipe.identity)
    needs_lse = any(one.planned.resumes for one in passes)
    reach = tuple(reach_of(one) for one in everything.values())
    make_out, make_lse = (
        framework.maker(shape, dtype, q)
        for shape, dtype in ((out_shape, problem.dtype), (lse_shape(problem, axes), problem.compute_dtype))
    )
    return ReadyAttention(call, problem, axes, gpu, reach, make_out, make_lse, needs_lse), arrays


def ready_attention(
    target: GpuTarget, passes: Sequence[HeadsPass], tensors: Mapping[str, Tensor], scale: float, gpu: Device, *,
    keep: object,
) -> ReadyCall:  # fmt: skip
    """A call of these passes over these arrays, q, k, v and out."""

    def schedule_for(copied: frozenset[str]) -> Schedule:
        return attention_schedule(target, passes, tensors, scale, gpu.multiprocessors, copied)

    return ReadyCall(target.in_place(tensors), schedule_for, gpu, current(), keep=keep)


def _attend_numpy(recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
    """NumPy arrays: copied to the first GPU, and the results back. Rows are padded on the way, so nothing else is."""
    for name, array in (("k", k), ("v", v), ("kv_lengths", kv_lengths), ("out", out)):
        if on_gpu(array):
            raise ArgumentTypeError(f"{name} wanted in CPU memory as q is, got a GPU array. Copy one of them.")
    operands = import_operands(q, k, v, recipe.layout)
    check_taken("q", operands.problem, recipe.executor.target)
    if kv_lengths is not None:
        check_kv_lengths(kv_lengths, operands.problem, operands.axes)
    written = prepare_out(out, operands)
    target = device(0)
    q_copy, k_copy, v_copy = (upload(operands.arrays[name], target) for name in ("q", "k", "v"))
    found = attend(recipe, q_copy, k_copy, v_copy, kv_lengths, None, return_lse)
    result, lse = found if return_lse else (found, found)
    written.array.bits[...] = download(result, written.array.bits.dtype)
    given = written.given if out is not None else export_array(written.array.bits, operands.problem.dtype, q)
    return (given, download(lse, np.dtype(operands.problem.compute_dtype))) if return_lse else given


def upload(given: Array, target: Device) -> DeviceArray:
    """A copy on the device in the caller's order of axes, rows of 16-bit numbers padded to 16 bytes."""
    host = padded_rows(given.bits) if given.bits.itemsize == 2 else np.ascontiguousarray(given.bits)
    array = DeviceArray(target, given.bits.shape, given.dtype, host.shape[-1])
    array.fill(host)
    return array


def download(array: DeviceArray, dtype: np.dtype[Any]) -> NDArray[Any]:
    """A copy on the host."""
    host = np.empty(array.shape, dtype)
    array.read(host)
    return host
