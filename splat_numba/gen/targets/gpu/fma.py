"""What the FMA units of a GPU do, in float32 and float64."""

from __future__ import annotations

from splat_numba.gen.plans.machine import Gpu

# FMAs a cycle of a multiprocessor (CUDA programming guide, throughput of arithmetic instructions), by dtype.
FMA_PER_CYCLE = {
    "float32": {(7, 5): 64, (8, 0): 64},
    "float64": {(8, 0): 32, (9, 0): 64, (10, 0): 64},
}
OTHER_FMA_PER_CYCLE = {"float32": 128, "float64": 2}
EFFICIENCY = 0.7  # of the products


def fma_rate(dtype: str, gpu: Gpu) -> float:
    """Multiply-adds a cycle that products of tiles reach, of a multiprocessor."""
    return FMA_PER_CYCLE[dtype].get(gpu.capability, OTHER_FMA_PER_CYCLE[dtype]) * EFFICIENCY
