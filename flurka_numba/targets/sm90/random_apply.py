"""Random features of the queries in stage 3: u = q omega^T by the matrix units, features from its accumulators.

A lane's numbers of two neighbouring columns of u are a word of the next product's left operand, so features keep the
order of omega's rows. omega has two images in shared memory, the number rounded to 16 bits and the rest of it likewise:
with one alone an error of 2^-9 in bfloat16 would be one of percents in exp(u). Each block makes them from omega itself,
so omega may change between launches of a graph. A place without a row repeats the first, whose features the state
multiplies with 0; so the maximum over a row needs no exceptions.
"""

from __future__ import annotations

from flurka_numba.targets.gpu.lanes import OCTET, QUAD
from flurka_numba.targets.sm90.apply_shape import ApplyTraits
from flurka_numba.targets.sm90.lanes import CHUNK, CHUNK_STEPS, CHUNK_WORDS, LANES_OF_ROW, first_word, swizzle
from flurka_numba.targets.sm90.random_features import inverse_norm, rfa_factor, slope, square_slope
from flurka_numba.targets.sm90.rows import left_operand
from flurka_numba.targets.sm90.shape import RandomFeatures, chunks
from splat_numba.gen.language.lane_layout import (
    ATOM,
    LANE_COLUMNS,
    LANE_ROWS,
    MATRIX,
    ROW_LANES,
    log2,
    sum_at,
    sums_of,
    words_of,
)
from splat_numba.gen.schedules.tensor_map import SPAN
from splat_numba.gen.targets.gpu.parts import KernelWriter
from splat_numba.gen.targets.sm90.shape import SPAN_BYTES, WARPGROUP, keys_descriptor, score_offset, spans

OMEGA_POINTERS = ("omega",)
THREADS = WARPGROUP
PAIRS_IN_FLIGHT = 8  # of a thread, while it reads omega


def emit_arrays(out: KernelWriter, phi: RandomFeatures) -> None:
    """Registers of two rows."""
    out.line(f"u = cuda.local.array({sums_of(phi.part)}, dtype=np.float32)")
    out.line(f"phi = cuda.local.array({words_of(phi.places)}, dtype=np.uint32)")


def emit_images(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """omega into shared memory, twice: pairs of neighbours to where the order of the queries' words wants them."""
    pairs_of_row = CHUNK // LANE_COLUMNS * chunks(traits.head_dim)
    pairs = phi.part * pairs_of_row // THREADS
    at_once = max(n for n in range(1, PAIRS_IN_FLIGHT + 1) if pairs % n == 0)
    with out.part("make_images", "omega into shared memory, twice: rounded to 16 bits, and the rest of it."):
        _emit_turns(out, traits, phi, pairs_of_row, pairs, at_once)
        out.line("ptx.fence_shared()")
        out.line("ptx.block_barrier()")


def _emit_turns(
    out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures, pairs_of_row: int, pairs: int, at_once: int
) -> None:
    """So many pairs of a thread at a time are on their way together."""
    out.line(f"numbers = cuda.local.array({2 * at_once}, dtype=np.float32)")
    with out.block(f"for turn in range({pairs // at_once})"):
        with out.block(f"for i in range({at_once})"):
            _emit_pair(out, pairs_of_row, at_once)
            first = "row"
            if phi.part != phi.rows:
                first = f"(row if row < u32({phi.rows}) else u32(0))"
            out.line(f"at = omega + u64(4) * (u64({first}) * u64({traits.head_dim}) + u64(pair_column))")
            for x in range(LANE_COLUMNS):
                when = f"u32(1) if pair_column < u32({traits.head_dim - x}) else u32(0)"
                if traits.head_dim % CHUNK == 0:
                    when = "u32(1)"
                out.line(f"numbers[2 * i + {x}] = ptx.load_real_when(at + u64({4 * x}), {when})")
        with out.block(f"for i in range({at_once})"):
            _emit_pair(out, pairs_of_row, at_once)
            _emit_halves(out, traits, phi)


def _emit_pair(out: KernelWriter, pairs_of_row: int, at_once: int) -> None:
    """Neighbouring threads have neighbouring pairs."""
    out.lines(
        f"""
        pair_number = u32((u32(turn) * u32({at_once}) + u32(i)) * u32({THREADS}) + thread)
        row = u32(pair_number // u32({pairs_of_row}))
        pair_column = u32((pair_number - row * u32({pairs_of_row})) * u32(2))
        """
    )


def _emit_halves(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """Element 8 t + 4 s + 2 h + x of a chunk of 32 stands at place 16 s + 8 h + 2 t + x, see apply.py."""
    step, half, lane = (
        f"((pair_column >> u32({log2(numbers)})) & u32({count - 1}))"
        for numbers, count in ((QUAD, 2), (LANE_COLUMNS, 2), (OCTET, ROW_LANES))
    )
    out.lines(
        f"""
        place = u32({step} * u32({ATOM}) + {half} * u32({MATRIX}))
        place = u32(place + {lane} * u32({LANE_COLUMNS}) + (pair_column & u32({CHUNK})))
        to = u32((u32(2) * place) ^ {swizzle("row")})
        to = u32(images + to + (row + (pair_column >> u32({log2(SPAN)})) * u32({phi.part})) * u32({SPAN_BYTES}))
        rounded = ptx.pack_{traits.dtype}(numbers[2 * i], numbers[2 * i + 1])
        low, high = ptx.unpack_{traits.dtype}(rounded)
        rest = ptx.pack_{traits.dtype}(numbers[2 * i] - low, numbers[2 * i + 1] - high)
        ptx.store_shared_word(to, rounded, u32(1))
        ptx.store_shared_word(to + u32({traits.omega_bytes}), rest, u32(1))
        """
    )


def emit_exponents(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """u = q omega^T of the tile, and the squares of its rows."""
    with out.part("add_squares", "|q|^2 of the lane's rows; four lanes have one."):
        _emit_squares(out, traits)
    with out.part("multiply_omega", "u = q omega^T of the tile, with both images of omega."):
        with out.block(f"for i in range({sums_of(phi.part)})"):
            out.line("u[i] = f32(0.0)")
        out.line(f"image = u64({keys_descriptor()}) | u64(images >> u32(4))")
        out.line("ptx.wgmma_fence()")
        for chunk in range(chunks(traits.head_dim)):
            for step in range(CHUNK_STEPS):
                for first in (0, traits.omega_bytes >> 4):
                    at = first + score_offset(CHUNK_STEPS * chunk + step, phi.part)
                    out.line(f"add_to_u(u, {left_operand('word', chunk, step)}, image + u64({at}))")
        out.line("ptx.wgmma_commit()")
        out.line("ptx.wgmma_wait_all()")


def _emit_squares(out: KernelWriter, traits: ApplyTraits) -> None:
    """square_0, square_1: |q|^2 of the lane's rows; four lanes have one."""
    out.line("square_0 = square_1 = f32(0.0)")
    whole = chunks(traits.head_dim) if traits.head_dim % OCTET == 0 else traits.head_dim // CHUNK
    if whole:
        with out.block(f"for chunk in range({whole})"), out.block(f"for i in range({QUAD})"):
            for row in range(LANE_ROWS):
                out.line(
                    f"low, high = ptx.unpack_{traits.dtype}(word[{CHUNK_WORDS} * chunk + {first_word(0, row)} + i])"
                )
                out.line(f"square_{row} += low * low + high * high")
    if whole < chunks(traits.head_dim):
        with out.block(f"for i in range({QUAD})"):
            _emit_ragged_words(out, traits, whole)
    for row in range(LANE_ROWS):
        for apart in LANES_OF_ROW:
            out.line(f"square_{row} += ptx.shuffle_xor(square_{row}, u32({apart}))")


def _emit_ragged_words(out: KernelWriter, traits: ApplyTraits, chunk: int) -> None:
    """A row may end within 16 bytes, and what stands behind it may be NaN."""
    for row in range(LANE_ROWS):
        word = f"word[{first_word(chunk, row)} + i]"
        out.line(f"low, high = ptx.unpack_{traits.dtype}({word})")
        for name, x in (("low", 0), ("high", 1)):
            kept = f"u32(1) if u32({CHUNK * chunk} + 2 * i) + eighth < u32({traits.head_dim - x}) else u32(0)"
            out.line(f"{name} = ptx.select_real({name}, f32(0.0), {kept})")
        out.line(f"{word} = ptx.pack_{traits.dtype}(low, high)")
        out.line(f"square_{row} += low * low + high * high")


def emit_features(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """u to features, as words of the next product."""
    emit = _emit_favor if phi.name == "favor" else _emit_rfa
    with out.part("make_features", "u to features, as words of the next product."):
        emit(out, traits, phi)


def _emit_favor(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """A row is divided by what its largest feature is, which cancels: float16 would lose the features of long queries,
    all of which are small.
    """
    less = square_slope(traits.head_dim)
    out.line("top_0 = top_1 = f32(-np.inf)")
    with out.block(f"for j in range({phi.part // MATRIX})"):
        for row in range(LANE_ROWS):
            out.line(f"top_{row} = ptx.maximum(top_{row}, ptx.maximum({sum_at('u', row, 0)}, {sum_at('u', row, 1)}))")
    for row in range(LANE_ROWS):
        for apart in LANES_OF_ROW:
            out.line(f"top_{row} = ptx.maximum(top_{row}, ptx.shuffle_xor(top_{row}, u32({apart})))")
        if phi.eps:
            out.line(f"shift_{row} = top_{row} * {slope(traits.head_dim)} + square_{row} * {less}")
            out.line(f"share_{row} = ptx.reciprocal(ptx.exp2(-(square_{row} * {less})) + f32({phi.eps!r}))")
        else:
            out.line(f"shift_{row} = top_{row} * {slope(traits.head_dim)}")
    for span in range(spans(phi.part) if traits.relative else 1):
        last = min(SPAN // MATRIX * (span + 1), phi.part // MATRIX) if traits.relative else phi.part // MATRIX
        relative = f" * relative_{span}" if traits.relative else ""
        with out.block(f"for j in range({SPAN // MATRIX * span}, {last})" if span else f"for j in range({last})"):
            for row in range(LANE_ROWS):
                pair = []
                for x in range(LANE_COLUMNS):
                    power = f"ptx.exp2({sum_at('u', row, x)} * {slope(traits.head_dim)} - shift_{row})"
                    power = f"({power} + f32({phi.eps!r})) * share_{row}" if phi.eps else power
                    pair.append(power + relative)
                out.line(f"phi[{LANE_ROWS} * j + {row}] = ptx.pack_{traits.dtype}({', '.join(pair)})")


def _emit_rfa(out: KernelWriter, traits: ApplyTraits, phi: RandomFeatures) -> None:
    """Sines in the first half of the words, cosines in the second."""
    for row in range(LANE_ROWS):
        out.line(f"inverse_{row} = {inverse_norm(f'square_{row}')}")
    with out.block(f"for j in range({phi.part // MATRIX})"):
        for row in range(LANE_ROWS):
            for x in range(LANE_COLUMNS):
                angle = f"{sum_at('u', row, x)} * inverse_{row}"
                out.line(f"sine_{x}, cosine_{x} = ptx.sine_cosine({angle})")
            for first, name in ((0, "sine"), (words_of(phi.part), "cosine")):
                pair = ", ".join(f"{name}_{x} * {rfa_factor(phi)}" for x in range(LANE_COLUMNS))
                out.line(f"phi[{first} + {LANE_ROWS} * j + {row}] = ptx.pack_{traits.dtype}({pair})")
