"""TileShape: the numbers that the text of the tile functions depends on."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Pass, Plan


@dataclass(frozen=True, slots=True)
class TileShape:
    """One size of tile on one machine: tile_kv keys by tile_q queries, products in rows x 2 vectors of registers."""

    tile_q: int
    tile_kv: int
    head_dim: int
    value_dim: int
    dtype: str
    compute_dtype: str
    width: int
    rows: int

    @property
    def suffix(self) -> str:
        """Ending of the function names."""
        return f"{self.tile_q}x{self.tile_kv}"

    @property
    def staged(self) -> bool:
        """Whether keys and values are converted into a tile of the compute type before they are multiplied."""
        return self.dtype != self.compute_dtype


def vector_width(machine: Machine, compute_dtype: str) -> int:
    """Numbers of the compute type in one vector."""
    return machine.lanes(ITEMSIZE[compute_dtype])


def tile_shape(plan: Plan, one: Pass) -> TileShape:
    """The tile shape of one pass."""
    problem = plan.problem
    return TileShape(
        tile_q=one.tile_q,
        tile_kv=one.tile_kv,
        head_dim=problem.head_dim,
        value_dim=problem.value_dim,
        dtype=problem.dtype,
        compute_dtype=problem.compute_dtype,
        width=vector_width(plan.cpu, problem.compute_dtype),
        rows=plan.cpu.register_rows,
    )
