"""A forward call's arrays and stages in an emulated GPU's memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flurka_numba.gpu.launches import BETWEEN, map_offsets, stage_maps, stage_numbers
from flurka_numba.gpu.plan import ForwardPlan
from flurka_numba.heads import merge
from flurka_numba.operands import Operands
from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.runtime.cuda.copies import padded, padded_rows, padded_strides
from splat_numba.runtime.cuda.tensor_map import MAP_BYTES, Layout, TensorMapArguments

MULTIPROCESSORS = 8  # of the GPU that plans are made for: few, so that blocks are few, but more than one share a state


class EmulatedCall:
    """One call's arrays in an emulated GPU's memory: rows padded to 16 bytes, and what lies behind them is NaN.

    w_q: where the plan has a model_dim; q of the operands is the layer's input then.
    """

    def __init__(self, operands: Operands, plan: ForwardPlan, w_q: NDArray[Any] | None = None) -> None:
        problem = plan.problem
        self._plan = plan
        self._memory = GlobalMemory()
        self._maps: list[TensorMapArguments] = []
        self._layouts: dict[str, Layout] = {}
        proj_k = operands.proj_k
        proj_v = proj_k if operands.proj_v is None else operands.proj_v
        arrays = {"k": operands.k, "v": operands.v}
        if w_q is None:
            arrays["q"] = operands.q
        else:
            arrays |= {"x": merge(operands.q)[:, None], "w_q": w_q[None, None]}
        if proj_k is not None and proj_v is not None:
            arrays |= {"proj_k": proj_k[None], "proj_v": proj_v[None]}
        self._places = {name: self._place_rows(name, array, problem.dtype) for name, array in arrays.items()}
        slots = (problem.batch, problem.heads, problem.rank)
        self._allocate_rows("out", operands.out.shape, problem.dtype)
        self._allocate_rows("k_slots", (*slots, problem.head_dim), problem.dtype)
        self._allocate_rows("v_slots", (*slots, problem.value_dim), problem.dtype)
        for name in BETWEEN:
            self._places[name] = self._memory.allocate(max(getattr(plan, name), 1))
        self._places["counters"] = self._place(np.zeros(max(plan.counters, 1), np.uint32))
        self._places["kv_lengths"] = self._place(operands.kv_lengths.astype(np.int32))
        if operands.omega is not None:
            self._places["omega"] = self._place(operands.omega)
        maps = self._place_maps(stage_maps(plan, self._layouts, self._places, self._places["counters"]))
        self._places |= {name: maps + offset for name, offset in map_offsets(plan).items()}

    def _place(self, array: NDArray[Any]) -> int:
        """The address of a copy of the array."""
        address = self._memory.allocate(max(array.nbytes, 1))
        self._memory.read(address, array.nbytes)[...] = np.frombuffer(array.tobytes(), np.uint8)
        return address

    def _place_rows(self, name: str, array: NDArray[Any], dtype: str) -> int:
        rows = padded_rows(array)
        rows[..., array.shape[-1] :] = 0xFFFF
        self._layouts[name] = _layout(array.shape, dtype)
        return self._place(rows)

    def _allocate_rows(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self._layouts[name] = _layout(shape, dtype)
        self._places[name] = self._memory.allocate(max(int(np.prod(shape[:3])) * padded(shape[3]) * 2, 1))

    def _place_maps(self, maps: list[TensorMapArguments]) -> int:
        """The address of tensor maps: of each its number."""
        words = np.zeros((len(maps), MAP_BYTES // 8), np.uint64)
        words[:] = np.arange(len(maps))[:, None]
        self._maps = maps
        return self._place(words)

    def stages(self) -> None:
        """Run them one after the other."""
        for stage in self._plan.stages:
            values = {**self._places, **stage_numbers(stage, self._layouts)}
            launch(stage.render(), stage.name, stage.entry, values, self._memory, self._maps, grid=stage.grid)

    def rows(self, name: str) -> NDArray[np.uint16]:
        """An array of results as written, without what its rows are padded with."""
        shape = self._layouts[name].sizes
        row = padded(shape[3])
        bits = self._memory.read(self._places[name], int(np.prod(shape[:3])) * row * 2).view(np.uint16)
        found: NDArray[np.uint16] = bits.reshape(*shape[:3], row)[..., : shape[3]]
        return found


def _layout(shape: tuple[int, ...], dtype: str) -> Layout:
    batch, heads, rows, dim = shape
    sizes = (batch, heads, rows, dim)
    return Layout(sizes, padded_strides(sizes), dtype)
