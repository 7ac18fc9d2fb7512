"""The whole text of a plan."""

from __future__ import annotations

from flurka_numba.targets.cpu import attend, compress, divide, expand, features, gradients, prelude, slopes, tiles
from flurka_numba.targets.cpu.plan import CpuPlan
from splat_numba.gen.writer import SourceWriter


def render(plan: CpuPlan) -> str:
    """Python source of the kernels of a plan, forward or of gradients. Pure and deterministic."""
    out = SourceWriter()
    prelude.emit_head(out, plan)
    _emit_tiles(out, plan)
    features.emit_elementary(out, plan)
    divide.emit_divide(out, plan)
    features.emit_features(out, plan, "query")
    if plan.feature_map == "favor":
        features.emit_features(out, plan, "key")
    if plan.gradients:
        _emit_gradients(out, plan)
    else:
        _emit_forward(out, plan)
    return out.text()


def _emit_tiles(out: SourceWriter, plan: CpuPlan) -> None:
    """What every text needs of tiles."""
    for dtype in dict.fromkeys((plan.dtype, plan.key_dtype)):
        tiles.emit_stage(out, dtype)
    tiles.emit_store_rows(out, plan.result_dtype)
    tiles.emit_scale_rows(out)
    tiles.emit_padded(out, plan.unit)
    tiles.emit_clear(out)
    tiles.emit_multiply(out, plan.rows, onto=False)
    tiles.emit_multiply(out, plan.rows, onto=True)


def _emit_forward(out: SourceWriter, plan: CpuPlan) -> None:
    """Entry functions: compress and fold, largest_key, absorb, attend."""
    compress.emit_fold(out)
    if plan.method != "kernel":
        compress.emit_compress(out, plan)
    if plan.method != "low_rank":
        if plan.feature_map == "favor":
            features.emit_largest(out)
            attend.emit_largest_key(out, plan)
        tiles.emit_add_rows(out)
        attend.emit_absorb(out, plan)
    attend.emit_attend(out, plan)


def _emit_gradients(out: SourceWriter, plan: CpuPlan) -> None:
    """Entry functions: query_gradient and fold, key_gradient, expand and project_gradient."""
    slopes.emit_slopes(out, plan)
    gradients.emit_fall(out)
    gradients.emit_query_gradient(out, plan)
    compress.emit_fold(out)
    if plan.method != "low_rank":
        gradients.emit_spread_row(out)
        gradients.emit_key_gradient(out, plan)
    if plan.method != "kernel":
        expand.emit_expand(out, plan)
        expand.emit_project_gradient(out, plan)
