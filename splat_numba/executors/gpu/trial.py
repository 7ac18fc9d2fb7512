"""Calls for timing: compiled candidates of one problem on random operands of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.gpu_arrays import tensor_of
from splat_numba.executors.executor import Part
from splat_numba.executors.gpu.call import ready_attention
from splat_numba.executors.gpu.parts import heads_passes, target_of
from splat_numba.gen.language.halves import narrow
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.tensor import padded
from splat_numba.runtime.cuda.device import Device
from splat_numba.runtime.cuda.frameworks import OURS
from splat_numba.runtime.cuda.memory import DeviceArray

ENOUGH_BYTES = 100 << 20  # twice the L2 cache: operands so large need not take turns
MOST_SETS = 8
DRAWN = 1_000_003  # numbers drawn, then repeated: odd, so that no two rows of a head are equal for long


def trial_calls(
    parts: Sequence[Part], problem: Problem, device: Device, *, ragged: bool
) -> list[Callable[[int], None]]:
    """A call of each part, all on the same operands, which live as long as the calls: contiguous (batch, heads, seq,
    dim), rows padded to 16 bytes, key lengths whole. Its argument is the launch's number: operands take turns by it.
    """
    sets = operand_sets(problem, device)
    lse = DeviceArray(device, problem.lse_sizes, problem.compute_dtype)
    lengths = DeviceArray(device, (problem.batch,), "int32") if ragged else None
    if lengths is not None:
        lengths.fill(np.full(problem.batch, problem.seq_kv, np.int32))
    named = zip(("q", "k", "v", "out"), sets[0], strict=True)
    tensors = {name: tensor_of(name, OURS.describe(name, array)) for name, array in named}

    def call_of(part: Part) -> Callable[[int], None]:
        passes = heads_passes(part, problem)
        ready = ready_attention(target_of([part]), passes, tensors, problem.head_dim**-0.5, device, keep=part)
        resumes = any(one.planned.resumes for one in passes)

        def call(number: int) -> None:
            arrays = sets[number % len(sets)]
            further = lse.pointer if resumes else 0, lengths.pointer if lengths is not None else 0
            ready.run((*[array.pointer for array in arrays], *further), device.stream, OURS, arrays[0])

        return call

    return [call_of(part) for part in parts]


def operand_sets(problem: Problem, device: Device) -> list[tuple[DeviceArray, ...]]:
    """(q, k, v, out) with standard normal numbers, as many times as keep small ones from staying in the L2 cache."""
    rng = np.random.default_rng(0)
    numbers, size = rng.standard_normal(DRAWN, np.float32), problem.itemsize
    drawn: NDArray[Any] = narrow(numbers, problem.dtype) if size == 2 else numbers.astype(problem.dtype)
    shapes = {name: problem.sizes(name) for name in ("q", "k", "v", "out")}

    def array(name: str, turn: int) -> DeviceArray:
        found = DeviceArray(device, shapes[name], problem.dtype, padded(shapes[name][3], size))
        if name != "out":
            shift = "qkv".index(name) + 3 * turn
            found.fill(np.resize(np.roll(drawn, 1009 * shift), found.nbytes // size))
        return found

    nbytes = sum(size * int(np.prod(shape, dtype=np.int64)) for shape in shapes.values())
    sets = max(1, min(MOST_SETS, -(-ENOUGH_BYTES // max(nbytes, 1))))
    return [tuple(array(name, turn) for name in shapes) for turn in range(sets)]
