"""What gradients.py writes of a tile's rows: gradients of x and of values, and what a second pass needs of a row."""

from __future__ import annotations

from flurka_numba.targets.formulas import gpu_slope, gpu_text
from flurka_numba.targets.sm90.gradient_rows import emit_unscaled_results, emit_unscaled_slots
from flurka_numba.targets.sm90.gradient_shape import OPERANDS, GradientTraits
from flurka_numba.targets.sm90.lanes import RESULT_OF_WORD, of_row
from flurka_numba.targets.sm90.rows import emit_real_columns, emit_spread, emit_store, words
from flurka_numba.targets.sm90.scales import emit_finite_top, is_scaled
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS
from splat_numba.gen.targets.gpu.parts import KernelWriter


def emit_row_weights(out: KernelWriter) -> None:
    """Both into memory."""
    with out.part("store_row_weights", "What a second pass needs of a row."):
        for row in range(LANE_ROWS):
            out.lines(
                f"""
                one_lane = real_{row} if eighth == u32(0) else u32(0)
                at = row_weights + u64(8) * (u64(pair) * u64(rows) + u64(row_{row}))
                ptx.store_reals2(at, scale_{row}, weight_{row}, one_lane)
                """
            )


def emit_values(out: KernelWriter, traits: GradientTraits) -> None:
    """dv = phi(k) dS; 0 beyond a length. y itself is the next product's operand."""
    with out.part("store_values", "dv = phi(k) dS; 0 beyond a length."):
        if traits.measure:
            with out.block(f"for i in range({words(traits.value_dim)})"):
                _emit_values_of_word(out, traits)
                for x in range(LANE_COLUMNS):
                    emit_finite_top(out, "top_v", f"ptx.select_real(of_values[at + {x}] * factor, f32(0.0), kept)")
            return
        out.line(f"dy_word = cuda.local.array({words(traits.value_dim)}, dtype=np.uint32)")
        with out.block(f"for i in range({words(traits.value_dim)})"):
            _emit_values_of_word(out, traits)
            undone = " * factor" if is_scaled(traits.dtype) else ""
            undone += " * scale_v" if traits.gradients_scaled else ""
            out.line(f"both = ptx.pack_{traits.dtype}(of_values[at]{undone}, of_values[at + 1]{undone})")
            out.line("dy_word[i] = ptx.select(both, u32(0), kept)")
        _emit_all_rows(out)
        emit_store(out, "dv", traits.value_dim, "dy_word")
        if traits.spread:
            emit_spread(out, "dv_spread", traits.value_dim, "dy_word")
        _emit_kept_rows(out)


def _emit_values_of_word(out: KernelWriter, traits: GradientTraits) -> None:
    """Which of a lane's results are of word i, whether its row is kept, and ``factor``, which undoes scales."""
    out.line(f"at = {RESULT_OF_WORD}")
    out.line(f"kept = {of_row('real')}")
    if is_scaled(traits.dtype):
        inverse = f" * ({of_row('row_inverse')})" if traits.row_scaled else ""
        out.line(f"factor = unscale{inverse}")


def emit_slopes(out: KernelWriter, traits: GradientTraits) -> None:
    """dx = phi'(x) times the gradient of phi(x); 0 beyond a length."""
    with out.part("store_slopes", "dx = phi'(x) times the gradient of phi(x); 0 beyond a length."):
        phi = traits.feature_map
        if traits.of == "queries":
            emit_unscaled_results(out, traits)
        elif traits.slots_scaled:
            out.line("unscale_k = unscale * value_factor")
        unscale = "unscale_k" if traits.slots_scaled else "unscale"
        with out.block(f"for i in range({words(traits.head_dim)})"):
            out.line(f"at = {RESULT_OF_WORD}")
            out.line(f"kept = {of_row('real')}")
            out.line(f"low, high = ptx.unpack_{traits.dtype}(x_word[i])")
            emit_real_columns(out, traits.head_dim, ("low", "high"))
            emit_unscaled_slots(out, traits)
            for name in ("low", "high"):
                out.line(f"y_{name} = {gpu_text(phi.source, name)}")
                out.line(f"slope_{name} = {gpu_slope(phi.derivative_source, name, f'y_{name}')}")
            if traits.of == "queries":
                out.line(f"factor = {of_row('scale')}")
                out.line("slope_low, slope_high = slope_low * factor, slope_high * factor")
            elif is_scaled(traits.dtype):
                out.line(f"slope_low, slope_high = slope_low * {unscale}, slope_high * {unscale}")
            if traits.measure:
                for x, name in enumerate(("low", "high")):
                    emit_finite_top(
                        out, "top_k", f"ptx.select_real(of_features[at + {x}] * slope_{name}, f32(0.0), kept)"
                    )
                return
            scale = " * scale_k" if traits.gradients_scaled else ""
            pair = f"of_features[at] * slope_low{scale}, of_features[at + 1] * slope_high{scale}"
            out.line(f"feature[i] = ptx.select(ptx.pack_{traits.dtype}({pair}), u32(0), kept)")
        _emit_all_rows(out)
        emit_store(out, OPERANDS[traits.of][2], traits.head_dim, "feature")
        if traits.spread:
            emit_spread(out, "dk_spread", traits.head_dim, "feature")


def _emit_all_rows(out: KernelWriter) -> None:
    """Gradients are written for rows beyond a length, too."""
    for row in range(LANE_ROWS):
        out.line(f"kept_{row} = real_{row}")
        out.line(f"real_{row} = u32(1) if row_{row} < rows else u32(0)")


def _emit_kept_rows(out: KernelWriter) -> None:
    for row in range(LANE_ROWS):
        out.line(f"real_{row} = kept_{row}")
