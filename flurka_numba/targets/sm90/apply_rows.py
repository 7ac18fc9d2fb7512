"""Features of two rows a lane, in registers, times a state in shared memory: products, division, stores.

The order of the values is chosen so that a lane ends with 8 adjacent ones: column 8 j + 2 t + x of a chunk of 32 is
value 8 t + 2 j + x, for lane t of the row's four. The state stands in this order already.
"""

from __future__ import annotations

from collections.abc import Sequence

from flurka_numba.targets.gpu.lanes import OCTET, QUAD
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.lanes import CHUNK, CHUNK_NUMBERS, CHUNK_WORDS
from flurka_numba.targets.sm90.rows import emit_row_scales, emit_share, uses_eps, when
from flurka_numba.targets.sm90.scales import INVERSE_ROW, VALUE_ROW, emit_carried
from flurka_numba.targets.sm90.shape import LARGEST_PRODUCT, SUM_ROWS, chunks, omega_rows, state_rows
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, SUMS, sums_of
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, score_offset, spans

SPAN_WORDS = CHUNK_WORDS * SPAN // CHUNK


def products_of(traits: ApplyTraits) -> list[tuple[int, int, str]]:
    """Columns, first state row and accumulator of each product: values and sums together where a product can be so
    wide.
    """
    values = CHUNK * chunks(traits.value_dim)
    if values + SUM_ROWS <= LARGEST_PRODUCT:
        return [(values + SUM_ROWS, 0, "total")]
    return [(values, 0, "total"), (SUM_ROWS, values, "sums")]


def product(traits: ApplyTraits, columns: int) -> str:
    """The maker of one, for the text's head."""
    return f'matrix_product({columns}, "{traits.dtype}", from_registers=True, transposed=False)'


def emit_totals(out: KernelWriter, traits: ApplyTraits) -> None:
    """Registers of the products' results."""
    for columns, _, name in products_of(traits):
        out.line(f"{name} = cuda.local.array({sums_of(columns)}, dtype=np.float32)")


def emit_products(out: KernelWriter, traits: ApplyTraits, words: Sequence[str]) -> None:
    """Features times the state at ``descriptor``, and times their sums for the denominator.

    words: what a product of 16 features takes from a lane, for one after the other.
    """
    with out.part("multiply_state", "Features times the state, and times their sums for the denominator."):
        for columns, _, name in products_of(traits):
            with out.block(f"for i in range({sums_of(columns)})"):
                out.line(f"{name}[i] = f32(0.0)")
        out.line("ptx.wgmma_fence()")
        for step, four in enumerate(words):
            for _, first_row, name in products_of(traits):
                at = score_offset(step, state_rows(traits.value_dim)) + (first_row * SPAN_BYTES >> 4)
                out.line(f"add_to_{name}({name}, {four}, descriptor + u64({at}))")
        out.line("ptx.wgmma_commit()")
        out.line("ptx.wgmma_wait_all()")


def emit_state_scale(out: KernelWriter, traits: ApplyTraits, state: str) -> None:
    """``state_scale`` of the image at the shared address ``state``, where the results depend on it; and what a span's
    features are multiplied with to have the same: ``relative_0`` and so on. ``value_factor``: what undoes the values'.
    """
    values, every = CHUNK * chunks(traits.value_dim), spans(traits.features) if traits.relative else 1
    if traits.values_scaled:
        emit_carried(out, "value_factor", state, values, VALUE_ROW)
    if not traits.relative and not (traits.scaled and uses_eps(traits.denominator, traits.eps)):
        return
    with out.part("read_scales", "The scale of a head's image, and what its spans' differ by."):
        for span in range(every):
            image = f"{state} + u32({span * state_rows(traits.value_dim) * SPAN_BYTES})"
            emit_carried(out, f"scale_{span}", image, values)
            if traits.relative:
                emit_carried(out, f"relative_{span}", image, values, INVERSE_ROW)
        out.line("state_scale = scale_0")
        for span in range(1, every):
            out.line(f"state_scale = scale_{span} if scale_{span} < state_scale else state_scale")
        for span in range(every if traits.relative else 0):
            out.line(f"relative_{span} = relative_{span} * state_scale")


def emit_scaled_words(out: KernelWriter, traits: ApplyTraits, numbers: str, first: str, row_1: str) -> None:
    """``word``: features of two rows, each times a power of two of its own, ``row_scale_0`` and ``row_scale_1``.

    numbers: an array, of which word i takes first + 2 i and the next, in the text's words. row_1: whether word i
    is of the second row.
    """
    words = CHUNK_WORDS * chunks(traits.head_dim)
    emit_row_scales(out, numbers, first, words, row_1)
    for span in range(spans(traits.head_dim)):
        relative = f" * relative_{span}" if traits.relative else ""
        for row in range(LANE_ROWS):
            out.line(f"factor_{row} = row_scale_{row}{relative}")
        with out.block(f"for i in range({SPAN_WORDS * span}, {min(SPAN_WORDS * (span + 1), words)})"):
            out.line(f"factor = factor_1 if {row_1} else factor_0")
            pair = ", ".join(f"{numbers}[{first} + {x} + 2 * i] * factor" for x in range(LANE_COLUMNS))
            out.line(f"word[i] = ptx.pack_{traits.dtype}({pair})")


def emit_results(out: KernelWriter, traits: ApplyTraits) -> None:
    """Divide, round, store 16 bytes a lane, to rows now_0 and now_1 from ``out_at``."""
    together = len(products_of(traits)) == 1
    sums, first_sum = ("total", CHUNK_NUMBERS * chunks(traits.value_dim)) if together else ("sums", 0)
    by_row = traits.scaled and not omega_rows(traits.feature_map)  # random features are at most 1, and need no scale
    scale = ("(row_scale * state_scale)" if by_row else "state_scale") if traits.scaled else None
    for row in range(LANE_ROWS):
        given = {"row_scale": f"row_scale_{row}"} if by_row and uses_eps(traits.denominator, traits.eps) else {}
        with out.part(
            "store_row",
            "Divide, round, store 16 bytes a lane.",
            first=str(LANE_COLUMNS * row),
            now=f"now_{row}",
            **given,
        ):
            emit_share(out, "share", f"{sums}[first + {first_sum}]", traits.denominator, traits.eps, scale)
            if traits.values_scaled:
                out.line("share = share * value_factor")
            out.line("real = u32(1) if now < seq_q else u32(0)")
            out.line("to = out_at + u64(now) * out_row")
            for chunk in range(chunks(traits.value_dim)):
                _emit_chunk(out, traits, chunk)


def _emit_chunk(out: KernelWriter, traits: ApplyTraits, chunk: int) -> None:
    """Of a row of results."""
    first, there = f"first + {CHUNK_NUMBERS * chunk}", when("real", chunk, traits.value_dim)
    text = f"{CHUNK} columns of a row, of which a lane has {OCTET} adjacent ones."
    with out.part("store_chunk", text, column=first, at=f"u64({2 * CHUNK * chunk})", there=there):
        for i in range(QUAD):
            pair = ", ".join(f"total[column + {SUMS * i + x}] * share" for x in range(LANE_COLUMNS))
            out.line(f"out_{i} = ptx.pack_{traits.dtype}({pair})")
        out.line("ptx.store_words4(to + at, out_0, out_1, out_2, out_3, there)")
