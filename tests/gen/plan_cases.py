"""Plans for a machine that does not depend on where the tests run."""

import numpy as np

from splat_numba.arguments.masks import describe, store_mask
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.geometry import Geometry, geometry
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.targets.cpu.planning import plan as make_plan

MACHINE = Machine(vector_bytes=32, vector_registers=16, cores=2)


def problem_of(seq_q: int, seq_kv: int, dtype: str = "float32", dim: int = 8) -> Problem:
    return Problem(seq_q, seq_kv, dim, dim, dtype)


def plan_of(mask, seq_q: int, seq_kv: int, dtype: str = "float32", dim: int = 8, machine: Machine = MACHINE) -> Plan:
    """The plan for a Pattern, an ACSR or a bool array."""
    stored = store_mask(mask, seq_q, seq_kv)
    return make_plan(geometry(stored, seq_q, seq_kv), problem_of(seq_q, seq_kv, dtype, dim), machine, describe(stored))


def transposed_plan_of(mask, seq_q: int, seq_kv: int) -> Plan:
    """The plan on the transpose of a mask: rows are keys."""
    stored = store_mask(mask, seq_q, seq_kv)
    turned, problem = geometry(stored, seq_q, seq_kv).transposed(), problem_of(seq_q, seq_kv).transposed()
    return make_plan(turned, problem, MACHINE, f"{describe(stored)}, transposed")


def table_plan_of(mask, seq_q: int, seq_kv: int, dtype: str = "float32", dim: int = 8) -> Plan:
    """As plan_of, by tables even where the pattern has a closed form."""
    stored = mask if isinstance(mask, ACSR) else ACSR.from_pattern(mask, seq_q, seq_kv)
    found = Geometry(stored.shape, None, stored.runs)
    return make_plan(found, problem_of(seq_q, seq_kv, dtype, dim), MACHINE, describe(stored))


def dense(mask, seq_q: int, seq_kv: int) -> np.ndarray:
    """(seq_q, seq_kv) bool of a Pattern, an ACSR or a bool array."""
    if isinstance(mask, np.ndarray):
        return mask
    return (mask if isinstance(mask, ACSR) else ACSR.from_pattern(mask, seq_q, seq_kv)).to_dense()
