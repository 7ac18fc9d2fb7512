"""A backward call on a GPU: checked and made ready once; a call like an earlier one is a look-up and launches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from splat_numba.arguments.gpu_arrays import check_call_lengths, tensor_of
from splat_numba.arguments.gradients import check_level, lse_shape, refuse_frozen, split_out_grads
from splat_numba.arguments.options import check_scale
from splat_numba.arguments.results import check_fits, result_shape
from splat_numba.errors import ArgumentTypeError
from splat_numba.executors.cpu.operands import check_operands
from splat_numba.executors.executor import Again, BackwardCall, Recipe
from splat_numba.executors.gpu.alike import Alike, ReadyArrays
from splat_numba.executors.gpu.call import download, upload
from splat_numba.executors.gpu.parts import heads_plans
from splat_numba.executors.host_gradients import import_backward
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import GRADIENTS, INPUTS, Wanted
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.schedule import Schedule
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.gradients import LEVELS, OPERANDS, backward_schedule
from splat_numba.gen.targets.registry import check_taken
from splat_numba.runtime.arrays import on_gpu
from splat_numba.runtime.cuda.arrays import (
    GpuArray,
    apart,
    check_gpu_out,
    check_same_device,
    contiguous_array,
    reach_of,
)
from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.cuda.frameworks import (
    Framework,
    describe,
    describe_operand,
    framework_of,
    known_framework,
)
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.recent import REMEMBERED
from splat_numba.runtime.tensors import mark_written
from splat_numba.settings import current


@dataclass(frozen=True, slots=True)
class ReadyBackward(ReadyArrays):
    """A backward call. makers: of dq, dk and dv what makes the array, None where it is not wanted."""

    makers: tuple[Callable[[Any], Any] | None, ...]


Targets = tuple[Any, Any, Any]  # where gradients are to be written, None where the call makes an array
_NO_TARGETS: Targets = (None, None, None)
_ready: Alike[ReadyBackward] = Alike(REMEMBERED)


def backward(recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
    """The gradients as arrays of q's framework. Raises ArgumentError, ArgumentTypeError, BackendError."""
    q = call.q
    if isinstance(q, np.ndarray):
        return _backward_numpy(recipe, call)
    framework = framework_of(q) or known_framework("q", q)
    given = _given(call)
    targets = _NO_TARGETS if call.out_grads is None else split_out_grads(call.out_grads)
    ready, places = _look_up(recipe, call, given, targets, framework)
    if ready.makers == _NO_TARGETS:
        return _NO_TARGETS
    found = [
        target if make is None or target is not None else make(q)
        for make, target in zip(ready.makers, targets, strict=True)
    ]
    for one in targets:
        mark_written(one)
    address = framework.address
    made = [0 if one is None else address(one) for one in found]
    stream = framework.stream(given, ready.device.ordinal)
    given_lengths = call.kv_lengths
    lengths, keep = (0, None) if given_lengths is None else ready.place_lengths(given_lengths, framework, q, stream)
    dlse = 0 if call.dlse is None else places[6]
    scratch = ready.call.run((*places[:5], *made, places[5], dlse, lengths), stream, framework, q)
    framework.finish(stream)
    del scratch, keep
    return found[0], found[1], found[2]


def _given(call: BackwardCall) -> tuple[Any, ...]:
    """What a call reads."""
    further = () if call.dlse is None else (call.dlse,)
    return (call.q, call.k, call.v, call.out, call.dout, call.lse, *further)


def backward_again(recipe: Recipe, call: BackwardCall) -> Again | None:
    """Executor.backward_again(): what backward() does once it has found its ready call."""
    given, framework = _given(call), framework_of(call.q)
    question = None if framework is None or recipe.identity is None else framework.likeness(given)
    if framework is None or question is None or call.kv_lengths is not None or call.out_grads is not None:
        return None
    ready, _ = _look_up(recipe, call, given, _NO_TARGETS, framework)
    if ready.makers == _NO_TARGETS:
        return None
    address, stream, run = framework.address, framework.stream, ready.call.run
    (make_dq, make_dk, make_dv), ordinal = ready.makers, ready.device.ordinal

    def again(others: tuple[Any, ...]) -> tuple[Any, ...] | None:
        places = question(others)
        if places is None:
            return None
        q, dlse = others[0], places[6] if len(places) > 6 else 0
        dq = dk = dv = None  # one by one: as lists they take a microsecond more
        to_dq = to_dk = to_dv = 0
        if make_dq is not None:
            to_dq = address(dq := make_dq(q))
        if make_dk is not None:
            to_dk = address(dk := make_dk(q))
        if make_dv is not None:
            to_dv = address(dv := make_dv(q))
        run((*places[:5], to_dq, to_dk, to_dv, places[5], dlse, 0), stream(others, ordinal), framework, q)
        return dq, dk, dv

    return again


def _look_up(
    recipe: Recipe, call: BackwardCall, given: tuple[Any, ...], targets: Targets, framework: Framework
) -> tuple[ReadyBackward, list[int]]:
    """The call made ready, now or earlier, and the addresses of all that is given, targets last."""
    everything = given if targets is _NO_TARGETS else (*given, *[one for one in targets if one is not None])
    identity, known = recipe.identity, None
    if identity is not None:
        owner = (
            framework, *map(id, identity), recipe.layout, recipe.scale, call.kv_lengths is None, len(given),
            call.frozen, targets if targets is _NO_TARGETS else tuple([one is None for one in targets]),
        )  # fmt: skip
        known = _ready.find(owner, everything, framework)
    if known is None:
        ready, arrays = _make_ready(recipe, call, given, targets, framework)
        return ready, [array.pointer for array in arrays.values()]
    found, places, key = known
    if found is None:
        return _ready.keep(key, _make_ready(recipe, call, given, targets, framework)[0]), places
    for number in range(len(given), len(everything)):
        if not apart(places[: number + 1], found.reach[: number + 1]):
            # Ranges meet, but perhaps no element does: the full check decides.
            _describe_all(_named(given), _written(targets), framework)
    return found, places


def _named(given: tuple[Any, ...]) -> dict[str, Any]:
    """What a call reads, by name, but for key lengths."""
    return dict(zip((*OPERANDS, *LEVELS), given, strict=False))


def _written(targets: Targets) -> dict[str, Any]:
    """The targets that there are, by the names of the gradients."""
    return {name: one for name, one in zip(GRADIENTS, targets, strict=True) if one is not None}


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
    recipe: Recipe, call: BackwardCall, given: tuple[Any, ...], given_targets: Targets, framework: Framework
) -> tuple[ReadyBackward, dict[str, GpuArray]]:
    """Check everything, plan, and decide all that addresses do not change."""
    targets = _written(given_targets)
    arrays = _describe_all(_named(given), targets, framework)
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
        _ready_call(recipe, call, arrays, shapes, problem, scale, gpu), problem, axes, gpu,
        tuple(reach_of(one) for one in arrays.values()),
        tuple(framework.maker(shapes[one], problem.dtype, call.q) if one in shapes else None for one in GRADIENTS),
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
        result = arrays.get(name, contiguous_array(shape, problem.dtype, gpu.ordinal))
        tensors[name] = tensor_of(name, result, recipe.layout)
    levels = {name: _level(name, arrays[name], problem) for name in LEVELS if name in arrays}

    def schedule_for(copied: frozenset[str]) -> Schedule:
        every = {**tensors, **levels}
        return backward_schedule(target, plans, every, wanted, scale, gpu.multiprocessors, copied)

    return ReadyCall(target.backward_in_place(tensors), schedule_for, gpu, current(), keep=(recipe.identity, plans))


def _level(name: str, array: GpuArray, problem: Problem) -> Tensor:
    """lse or its gradient as (batch, heads, seq, 1)."""
    sizes = (*problem.lse_sizes, 1)
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
