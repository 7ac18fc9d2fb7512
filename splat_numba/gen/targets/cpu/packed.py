"""The text of the packed operators' kernels, and of their gradients': what they have in common.

A kernel takes a range of items, (batch, head, row) flattened with the row fastest. A row's columns come from its runs,
three integers each; no array of indices is read. Lanes run along a row of keys, values or packed values.
"""

from __future__ import annotations

from splat_numba.gen.language.cpu_entry import CpuText
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.cpu import packed_sddmm, packed_softmax, packed_softmax_backward, packed_spmm
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan
from splat_numba.gen.targets.cpu.packed_schedule import packed_entry
from splat_numba.gen.targets.cpu.prelude import emit_exp2, emit_imports

FAMILIES = {
    "sddmm": ("R-SDDMM: values = scale * q.k for every kept pair", packed_sddmm.emit_sddmm),
    "softmax": ("R-softmax: every row of packed values, normalised", packed_softmax.emit_softmax),
    "spmm": ("R-SpMM: out = sum of value vectors, weighted by packed values", packed_spmm.emit_spmm),
    "softmax_lse": (
        "R-softmax with every row's log-sum-exp; weights may be written over the values",
        packed_softmax.emit_softmax,
    ),
    "softmax_backward": (
        "Gradient of R-softmax: dvalues = weights * (dweights - the row's sum of weights * dweights)",
        packed_softmax_backward.emit_softmax_backward,
    ),
    "spmm_transposed": (
        "R-SpMM of the transposed mask, a row a key: out = sum of the vectors of the queries that keep it, weighted",
        packed_spmm.emit_spmm,
    ),
}


def packed_text(plan: PackedPlan) -> CpuText:
    """The text with its entry function."""
    return CpuText(plan.traits, render_packed(plan), (packed_entry(plan),))


def render_packed(plan: PackedPlan) -> str:
    """Python source of the kernel of ``plan``, a function named after its operator. Pure and deterministic."""
    out = SourceWriter()
    meaning, emit = FAMILIES[plan.operator]
    quotes = '"' * 3
    out.lines(
        f"""
        {quotes}{meaning}; {_shape(plan)}.

        Call it with a range of items first .. last - 1: (batch, head, row), the row fastest. Ranges are independent.
        {quotes}
        """
    )
    out.line()
    emit_imports(out, plan.compute_dtype, plan.width)
    _emit_lane_functions(out, plan)
    if plan.operator in ("softmax", "softmax_lse"):
        emit_exp2(out, plan.compute_dtype)
    emit(out, plan)
    return out.text()


def _shape(plan: PackedPlan) -> str:
    """The plan in words."""
    stored = plan.dtype if plan.contiguous else f"{plan.dtype} at any stride"
    if plan.rows_only:
        return stored
    runs = "at most one run a row" if plan.regular else "several runs a row"
    step = "of several steps" if plan.step is None else f"of step {plan.step}"
    runs += f"; {plan.shared_rows} rows share loads" if plan.grouped else ""
    return f"{'head_dim' if plan.operator == 'sddmm' else 'value_dim'} {plan.dim}, {stored}; {runs}, {step}"


def _emit_lane_functions(out: SourceWriter, plan: PackedPlan) -> None:
    """Reads of whole vectors, and of what is left of a row of ``dim`` numbers."""
    parts = "part_writer, " if plan.grouped and plan.operator == "sddmm" else ""
    out.line(f"from splat_numba.runtime.lanes import {parts}reader, reductions")
    out.line()
    out.line(f'add_lanes, largest_lane, add_each = reductions("{plan.compute_dtype}", WIDTH)')
    out.line(f'read = reader("{plan.dtype}", WIDTH, WIDTH, {plan.contiguous})')
    if plan.dim % plan.width:
        out.line(f'read_rest = reader("{plan.dtype}", WIDTH, {plan.dim % plan.width}, {plan.contiguous})')
