"""A backward call on a GPU: checked and made ready once; a call like an earlier one is a look-up and launches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splat_numba.arguments.gpu_arrays import check_call_lengths, place_lengths, tensor_of
from splat_numba.arguments.gradients import check_level, lse_shape, refuse_frozen, split_out_grads
from splat_numba.arguments.options import check_scale
from splat_numba.arguments.results import check_fits, result_shape
from splat_numba.errors import ArgumentTypeError
from splat_numba.executors.executor import BackwardCall, Recipe
from splat_numba.executors.gpu_call import download, upload
from splat_numba.executors.gpu_parts import heads_plans
from splat_numba.executors.host_gradients import import_backward
from splat_numba.executors.operands import check_operands
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import GRADIENTS, INPUTS, Wanted
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.schedule import Schedule
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gradients import BACKWARD_ARGUMENTS, LEVELS, OPERANDS, backward_schedule
from splat_numba.gen.targets.registry import check_taken
from splat_numba.runtime.arrays import on_gpu
from splat_numba.runtime.cuda.arrays import (
    GpuArray,
    Reach,
    apart,
    check_gpu_out,
    check_same_device,
    contiguous_strides,
    reach_of,
)
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import (
    Framework,
    describe,
    describe_operand,
    framework_of,
    known_framework,
    known_keys,
)
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.recent import REMEMBERED, Recent
from splat_numba.settings import current


@dataclass(frozen=True, slots=True)
class ReadyBackward:
    """A call but for its addresses. shapes: of the gradients that are wanted, by name; reach: of everything given."""

    call: ReadyCall
    problem: Problem
    axes: int
    device: Device
    shapes: Mapping[str, tuple[int, ...]]
    reach: tuple[Reach, ...]


_ready: Recent[ReadyBackward] = Recent(REMEMBERED)


def backward(recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
    """The gradients as arrays of q's framework. Raises ArgumentError, ArgumentTypeError, BackendError."""
    if isinstance(call.q, np.ndarray):
        return _backward_numpy(recipe, call)
    framework = framework_of(call.q) or known_framework("q", call.q)
    given, grads = _given(call), dict(zip(GRADIENTS, split_out_grads(call.out_grads), strict=True))
    targets = {name: one for name, one in grads.items() if one is not None}
    ready, places = _look_up(recipe, call, given, targets, framework)
    addresses = dict(zip((*given, *targets), places, strict=True))
    for name, shape in ready.shapes.items():
        if name not in targets:
            targets[name] = framework.empty(shape, ready.problem.dtype, call.q)
            addresses[name] = framework.address(targets[name])
    if not targets:
        return None, None, None
    stream = framework.stream(tuple(given.values()), ready.device.ordinal)
    keep = None
    if call.kv_lengths is not None:
        addresses["kv_lengths"], keep = place_lengths(
            call.kv_lengths, ready.problem, ready.axes, ready.device, framework, call.q, stream,
            ready.call.settings,
        )  # fmt: skip
    scratch = ready.call.run([addresses.get(name, 0) for name in BACKWARD_ARGUMENTS], stream, framework, call.q)
    framework.finish(stream)
    del scratch, keep
    dq, dk, dv = (targets.get(name) for name in GRADIENTS)
    return dq, dk, dv


def _given(call: BackwardCall) -> dict[str, Any]:
    """What the call reads, by name, but for key lengths."""
    found = {name: getattr(call, name) for name in (*OPERANDS, *LEVELS)}
    if call.dlse is None:
        del found["dlse"]
    return found


def _look_up(
    recipe: Recipe, call: BackwardCall, given: Mapping[str, Any], targets: Mapping[str, Any], framework: Framework
) -> tuple[ReadyBackward, list[int]]:
    """The call made ready, now or earlier, and the addresses of all that is given, targets last."""
    everything = (*given.values(), *targets.values())
    identity = recipe.identity
    known = None if identity is None else known_keys(everything, framework)
    if identity is None or known is None:
        ready, arrays = _make_ready(recipe, call, given, targets, framework)
        return ready, [array.pointer for array in arrays.values()]
    places, kinds = known
    key = (
        framework, *map(id, identity), recipe.layout, recipe.scale, call.kv_lengths is None, call.dlse is None,
        call.frozen, tuple(targets), kinds,
    )  # fmt: skip
    found = _ready.find(key)
    if found is None:
        return _ready.keep(key, _make_ready(recipe, call, given, targets, framework)[0]), places
    for number in range(len(given), len(everything)):
        if not apart(places[: number + 1], found.reach[: number + 1]):
            _describe_all(given, targets, framework)  # ranges meet, but perhaps no element does: the full check decides
    return found, places


def _describe_all(given: Mapping[str, Any], targets: Mapping[str, Any], framework: Framework) -> dict[str, GpuArray]:
    """The arrays of a call, checked one by one, and targets against all before them."""
    found = {name: describe_operand(name, array, framework) for name, array in given.items()}
    check_same_device(found)
    for name, array in targets.items():
        argument = _argument(name)
        written = describe(argument, array, framework)
        check_same_device({"q": found["q"], argument: written})
        check_gpu_out(written, found, argument)
        found[name] = written
    return found


def _argument(gradient: str) -> str:
    return f"out_grads[{GRADIENTS.index(gradient)}]"


def _make_ready(
    recipe: Recipe, call: BackwardCall, given: Mapping[str, Any], targets: Mapping[str, Any], framework: Framework
) -> tuple[ReadyBackward, dict[str, GpuArray]]:
    """Check everything, plan, and decide all that addresses do not change."""
    arrays = _describe_all(given, targets, framework)
    problem = check_operands({name: arrays[name] for name in INPUTS}, recipe.layout)
    check_taken("q", problem, recipe.executor.target)
    scale = check_scale(recipe.scale, problem.head_dim, problem.dtype)
    axes = len(arrays["q"].shape)
    _check_results(arrays, problem, axes)
    shapes = _shapes(arrays, call.frozen, targets)
    for name in targets:
        check_fits(_argument(name), arrays[name], arrays[name[1:]].shape, problem.dtype)
    if call.kv_lengths is not None:
        check_call_lengths(call.kv_lengths, problem, axes, framework)
    gpu = device(arrays["q"].device)
    ready = ReadyBackward(
        _ready_call(recipe, call, arrays, shapes, problem, scale, gpu), problem, axes, gpu, shapes,
        tuple(reach_of(one) for one in arrays.values()),
    )  # fmt: skip
    return ready, arrays


def _check_results(arrays: Mapping[str, GpuArray], problem: Problem, axes: int) -> None:
    """out, dout, lse and dlse fit q and v."""
    shape, levels = result_shape(arrays["q"], problem), lse_shape(problem, axes)
    for name in ("out", "dout"):
        check_fits(name, arrays[name], shape, problem.dtype)
    for name in LEVELS:
        if name in arrays:
            check_level(name, arrays[name], levels, problem.compute_dtype)


def _shapes(
    arrays: Mapping[str, GpuArray], frozen: frozenset[str], targets: Mapping[str, Any]
) -> dict[str, tuple[int, ...]]:
    """Of the gradients that are wanted, by name."""
    for name in frozen:
        if f"d{name}" in targets:
            refuse_frozen(_argument(f"d{name}"), name)
    return {f"d{name}": arrays[name].shape for name in INPUTS if name not in frozen}


def _ready_call(
    recipe: Recipe, call: BackwardCall, arrays: Mapping[str, GpuArray], shapes: Mapping[str, tuple[int, ...]],
    problem: Problem, scale: float, gpu: Device,
) -> ReadyCall:  # fmt: skip
    """The schedules of a call: what they depend on beside addresses."""
    wanted = Wanted(*(f"d{name}" in shapes for name in INPUTS))
    plans, target = heads_plans(recipe, problem, scale, gpu.as_planned, ragged=call.kv_lengths is not None)
    tensors = {name: tensor_of(name, arrays[name], recipe.layout) for name in OPERANDS}
    for name, shape in shapes.items():
        fresh = GpuArray(0, shape, contiguous_strides(shape, problem.itemsize), problem.dtype, gpu.ordinal, "")
        tensors[name] = tensor_of(name, arrays.get(name, fresh), recipe.layout)
    levels = {name: _level(name, arrays[name], problem) for name in LEVELS if name in arrays}

    def schedule_for(copied: frozenset[str]) -> Schedule:
        every = {**tensors, **levels}
        return backward_schedule(target, plans, every, wanted, scale, gpu.multiprocessors, copied)

    return ReadyCall(target.backward_in_place(tensors), schedule_for, gpu, current(), keep=(recipe.identity, plans))


def _level(name: str, array: GpuArray, problem: Problem) -> Tensor:
    """lse or its gradient as (batch, heads, seq, 1)."""
    sizes = (problem.batch, problem.heads_q, problem.seq_q, 1)
    to_batch, to_head, to_row = (*(0,) * (3 - len(array.strides)), *array.strides)
    return Tensor(sizes, (to_batch, to_head, to_row, ITEMSIZE[array.dtype]), array.dtype, name)


def _backward_numpy(recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
    """NumPy arrays: copied to the first GPU, and the gradients back."""
    for name in (*OPERANDS, *LEVELS, "kv_lengths"):
        if on_gpu(getattr(call, name)):
            raise ArgumentTypeError(f"{name} wanted in CPU memory as q is, got a GPU array. Copy one of them.")
    given, target = import_backward(recipe, call), device(0)
    check_taken("q", given.problem, recipe.executor.target)
    if given.wanted is None:
        return None, None, None
    copies: dict[str, Any] = {"dlse": None}
    copies |= {name: upload(one, target) for name, one in given.arrays.items()}
    found = backward(recipe, BackwardCall(**copies, kv_lengths=call.kv_lengths, frozen=call.frozen))
    for name, one in zip(GRADIENTS, found, strict=True):
        if one is not None:
            given.written[name].array.bits[...] = download(one, given.written[name].array.bits.dtype)
    return given.exported(call)
