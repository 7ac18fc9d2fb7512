"""Tile shapes of gradient kernels that a multiprocessor can hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import lru_cache, partial

from splat_numba.errors import PlanError
from splat_numba.gen.boxes.cost import Work
from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.boxes.tiles import Tiles
from splat_numba.gen.language.lane_layout import ATOM
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.gpu.gradient_kernels import FINISHED, Kernels, first_with_tiles
from splat_numba.gen.targets.gpu.gradient_plans import gradient_dims
from splat_numba.gen.targets.sm80.backward.shape import atoms_of, fits_registers, registers, shared_bytes, threads_of
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.cost import GRADIENTS, predict
from splat_numba.gen.targets.sm80.shape import MOST_REGISTERS
from splat_numba.gen.targets.sm80.tile_shapes import resident_of, worth_trying

LEAST_COLUMNS = 16  # of a tile
# Groups of 64 left rows, columns of a tile, stages: those that are tried together, and what is left where none fits,
# the last for head_dim = value_dim = 256 in 99 KiB.
SIZES = (
    ((1, 32, 2), (1, 64, 2), (2, 32, 2), (2, 64, 2)),
    ((1, LEAST_COLUMNS, 2),),
    ((1, LEAST_COLUMNS, 1),),
)
# Of float32, whose rows are twice as long, two blocks of head_dim 128 are resident with few columns alone.
SIZES_OF_REALS = (((1, LEAST_COLUMNS, 2), *SIZES[0]), SIZES[2])


@lru_cache(maxsize=64)
def candidates(problem: Problem, of: str, gpu: Gpu) -> tuple[tuple[Traits, ...], Kernels]:
    """Boxes to try for the gradients of queries or keys, and which gradients each kernel makes.

    Raises PlanError for head dimensions so large that not even the smallest tile fits.
    """
    for sizes in SIZES_OF_REALS if problem.dtype == "float32" else SIZES:
        if found := first_with_tiles(of, partial(_fitting, problem, of, gpu, sizes)):
            shapes, kernels = found
            return worth_trying(shapes, partial(narrow, kernel=partial(_most, of=of, wanted=kernels[0]))), kernels
    raise PlanError(
        f"head_dim and value_dim wanted small enough for gradients in tiles of {GROUP_ROWS} x {LEAST_COLUMNS} tokens "
        f"in {gpu.shared_bytes:,} bytes of shared memory and {MOST_REGISTERS} registers a thread, got "
        f"{problem.head_dim} and {problem.value_dim}. Split the heads, or use target='simt'."
    )


def gradient_tiles(problem: Problem, gpu: Gpu, of: str) -> Tiles:
    """Those of candidates(). Raises PlanError as it does."""
    shapes, kernels = candidates(problem, of, gpu)
    return Tiles(problem, gpu, shapes, partial(_seconds, of, kernels[0]), gradient_dims(of, ATOM))


def _seconds(
    of: str, wanted: tuple[str, ...], work: Work, boxes: Traits, problem: Problem, gpu: Gpu, dims: int
) -> float:
    return predict(work, boxes, problem, gpu, dims, threads_of(_most(boxes, of, wanted)), GRADIENTS)


def _most(boxes: Traits, of: str, wanted: tuple[str, ...]) -> GradientTraits:
    """With every option, of which a kernel wants the most registers."""
    return GradientTraits(boxes, of, wanted, FINISHED, ragged=True)


def narrow(boxes: Traits, kernel: Callable[[Traits], GradientTraits]) -> bool:
    """Whether a warp of the shape's kernel has sixteen of 128 rows. kernel: of a shape, with every option."""
    return boxes.groups > atoms_of(kernel(boxes))


def _fitting(
    problem: Problem, of: str, gpu: Gpu, sizes: Iterable[tuple[int, int, int]], kernels: Kernels
) -> list[Traits]:
    found = []
    for groups, tile, stages in sizes:
        boxes = Traits(problem.head_dim, problem.value_dim, problem.dtype, groups, tile, stages, 1,
                       precision=problem.precision)  # fmt: skip
        resident = min(most_resident(_most(boxes, of, wanted), gpu) for wanted in kernels)
        if resident:
            found.append(replace(boxes, blocks_per_multiprocessor=resident))
    return found


def most_resident(traits: GradientTraits, gpu: Gpu) -> int:
    """Blocks of these traits that a multiprocessor holds; 0 where none fits."""
    shared, threads = shared_bytes(traits), threads_of(traits)
    if shared > gpu.shared_bytes or not fits_registers(traits):
        return 0
    by_registers = gpu.registers // (threads * min(registers(traits), MOST_REGISTERS))
    return resident_of(shared, by_registers, gpu)
