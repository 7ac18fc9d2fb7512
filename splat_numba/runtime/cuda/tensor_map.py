"""Tensor maps as the driver encodes them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.gen.schedules.tensor_map import TensorMapArguments
from splat_numba.runtime.cuda.driver import ask, driver

AXES = 5


def encode(arguments: TensorMapArguments) -> NDArray[np.uint64]:
    """The 128 bytes of a tensor map, as 16 words."""
    cu = driver()
    kind, *layout = constants_of(arguments)
    found = ask(
        cu.cuTensorMapEncodeTiled,
        kind,
        AXES,
        arguments.pointer,
        [cu.cuuint64_t(size) for size in arguments.sizes],
        [cu.cuuint64_t(step) for step in arguments.strides],
        [cu.cuuint32_t(size) for size in arguments.box],
        [cu.cuuint32_t(1)] * AXES,
        *layout,
    )
    return np.array([int(word) for word in found.opaque], np.uint64)


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
