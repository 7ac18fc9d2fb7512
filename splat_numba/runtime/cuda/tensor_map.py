"""Tensor maps as the driver encodes them, once for each set of addresses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.tensor_map import MAP_BYTES, BoxMap, TensorMapArguments, tensor_map_arguments
from splat_numba.runtime.cuda import launch_layout as layout
from splat_numba.runtime.cuda.driver import addresses, driver, refuse
from splat_numba.runtime.cuda.launch import WORD_BYTES, HostWords, compiled
from splat_numba.settings import Settings

SPARE = "spare"  # the buffer of maps of empty arrays
_NOWHERE = -1


def map_record(one: BoxMap, buffers: Mapping[str, tuple[int, int]], memory: HostWords) -> list[int]:
    """The words of a map, in the order of the layout. buffers: as record_of() has them, and SPARE."""
    found = tensor_map_arguments(one, 0, _NOWHERE)
    if found.pointer == _NOWHERE:
        return words_of(found, buffers[SPARE][0], 0, memory)
    return words_of(found, buffers[one.tensor.buffer][0], found.pointer + one.tensor.offset, memory)


def words_of(found: TensorMapArguments, buffer: int, offset: int, memory: HostWords) -> list[int]:
    """The same of a map that begins so many bytes behind the buffer's start."""
    kind, interleave, swizzle, promotion, fill = (int(word) for word in constants_of(found))
    sizes, steps = (memory.place(np.array(several, np.uint64)) for several in (found.sizes, found.strides))
    box, units = (memory.place(np.array(several, np.uint32)) for several in (found.box, (1,) * layout.MAP_AXES))
    return [kind, buffer, offset, sizes, steps, box, units, interleave, swizzle, promotion, fill]


class Maps:
    """Maps over buffers whose addresses come with every call."""

    def __init__(self, records: Sequence[Sequence[int]], memory: HostWords, settings: Settings) -> None:
        """memory: where the records' arrays are."""
        self._count, self._memory, self._settings = len(records), memory, settings
        self._first = memory.records(records)
        (self._function,) = addresses("cuTensorMapEncodeTiled")

    def encode(self, bases: Sequence[int]) -> NDArray[np.uint64]:
        """The maps for buffers at these addresses, 16 words each. Raises BackendError where the driver refuses."""
        words = np.zeros((MAP_BYTES * self._count + layout.MAP_ALIGNMENT) // WORD_BYTES, np.uint64)
        start = -words.ctypes.data % layout.MAP_ALIGNMENT // WORD_BYTES
        made = words[start : start + MAP_BYTES * self._count // WORD_BYTES]
        places = np.array(bases, np.uint64)
        status = compiled(self._settings)["encode"](
            self._first, self._count, places.ctypes.data, made.ctypes.data, self._function
        )
        if status:
            refuse("cuTensorMapEncodeTiled", driver().CUresult(status))
        return made


def constants_of(arguments: TensorMapArguments) -> tuple[Any, Any, Any, Any, Any]:
    """The driver's words for a map's numbers, and for its interleave, swizzle, L2 promotion and what is outside."""
    cu = driver()
    types, swizzle = cu.CUtensorMapDataType, cu.CUtensorMapSwizzle
    kind = {
        "bfloat16": types.CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
        "float16": types.CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
        "float32": types.CU_TENSOR_MAP_DATA_TYPE_FLOAT32,
    }[arguments.dtype]
    return (
        kind,
        cu.CUtensorMapInterleave.CU_TENSOR_MAP_INTERLEAVE_NONE,
        swizzle.CU_TENSOR_MAP_SWIZZLE_128B if arguments.swizzled else swizzle.CU_TENSOR_MAP_SWIZZLE_NONE,
        cu.CUtensorMapL2promotion.CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
        cu.CUtensorMapFloatOOBfill.CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
    )
