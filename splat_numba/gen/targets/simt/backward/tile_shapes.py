"""Tile shapes of gradient kernels that a multiprocessor can hold."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

from splat_numba.errors import PlanError
from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import Kernels, first_with_tiles
from splat_numba.gen.targets.gpu.gradient_plans import gradient_dims
from splat_numba.gen.targets.simt.backward.traits import GradientTraits, registers, share_of, shared_bytes
from splat_numba.gen.targets.simt.cost import predict
from splat_numba.gen.targets.simt.shape import MOST_REGISTERS
from splat_numba.gen.targets.simt.tile_shapes import TILES_KV, most_resident


@lru_cache(maxsize=64)
def candidates(problem: Problem, of: str, gpu: Gpu) -> tuple[tuple[Traits, ...], Kernels]:
    """Boxes to try for the gradients of queries or keys, and which gradients each kernel makes.

    Raises PlanError for head dimensions so large that not even the smallest tile fits.
    """

    def fitting(kernels: Kernels) -> list[Traits]:
        return [one for tile in TILES_KV if (one := _most_resident(problem, of, kernels, tile, gpu))]

    if (found := first_with_tiles(of, fitting)) is not None:
        return found
    raise PlanError(
        f"head_dim and value_dim wanted small enough for gradients in tiles of {GROUP_ROWS} x {TILES_KV[-1]} tokens of "
        f"{problem.compute_dtype} in {gpu.shared_bytes:,} bytes of shared memory and {MOST_REGISTERS} registers a "
        f"thread, got {problem.head_dim} and {problem.value_dim}. Split the heads, or use backend='cpu'."
    )


def gradient_tiles(problem: Problem, gpu: Gpu, of: str) -> Tiles:
    """Those of candidates(), for the gradients of queries or keys. Raises PlanError as it does."""
    shapes, kernels = candidates(problem, of, gpu)

    def seconds(work: Work, traits: Traits, problem: Problem, gpu: Gpu, dims: int) -> float:
        shares = [share_of(_any_options(traits, of, wanted)) for wanted in kernels]
        least = min(shares, key=lambda share: share.rows)
        return predict(work, traits, problem, gpu, dims, least.rows, least.threads)

    return Tiles(problem, gpu, shapes, seconds, gradient_dims(of))


def _any_options(boxes: Traits, of: str, wanted: tuple[str, ...]) -> GradientTraits:
    """A kernel's traits with all options, which want registers."""
    return GradientTraits(boxes, of, wanted, boxes.dtype, added=True, ragged=True, clears=True)


def _most_resident(problem: Problem, of: str, kernels: Kernels, tile: int, gpu: Gpu) -> Traits | None:
    boxes = Traits(problem.head_dim, problem.value_dim, problem.dtype, 1, tile, 1, 1)
    resident = []
    for wanted in kernels:
        one = _any_options(boxes, of, wanted)
        resident.append(most_resident(shared_bytes(one), share_of(one).threads, registers(one), gpu))
    return replace(boxes, blocks_per_multiprocessor=min(resident)) if min(resident) else None
