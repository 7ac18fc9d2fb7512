"""Stage 2 of FLuRKA with an elementwise map: the state of every head from what stage 1 left, by tensor cores.

A block takes 64 features x 64 values and its share of the slots. All threads add up the parts of 8 adjacent columns of
a slot, in their order, take phi, round, and put them into shared memory with the slots as the products' depth; columns
stand where stage 3 wants them (apply.py), so that a lane of the result, S^T, holds neighbours of the image that it
writes. The sums of features are a product with ones. Where slots are shared out, the block that comes last adds up the
shares in their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_text
from flurka_numba.targets.gpu_text import emit_shared_start, parameters_of, start_text
from flurka_numba.targets.powers import emit_inverse, emit_scale
from flurka_numba.targets.sm90.rows import emit_largest_of_block
from flurka_numba.targets.sm90.scales import TOP, emit_carrier, is_scaled
from flurka_numba.targets.sm90.shape import CHUNK, STATE_SIDE, SUM_ROWS, CompressTraits, chunks, state_bytes, state_rows
from flurka_numba.targets.sm90.slots import PART_COUNTS
from flurka_numba.targets.sm90.state_block import emit_last_share, emit_state_share
from splat_numba.gen.entry import Entry
from splat_numba.gen.targets.sm90.shape import ALIGNMENT, SPAN, SPAN_BYTES, spans, values_descriptor
from splat_numba.gen.writer import SourceWriter

POINTERS = ("parts", "states", "shares", "counters")
COUNTS = (*PART_COUNTS, "heads", "slots", "shares_of_state")
ENTRY = "slot_state"
THREADS = 256
ROWS = THREADS // 8  # slots that all threads read at a time
LOADS = 16  # of a thread in flight, 16 bytes each: 64 KiB of a block
LARGEST_DEPTH = 256  # slots in shared memory
LARGEST_SCALED_DEPTH = 128  # where a thread holds its numbers of all of them, until their scale is known
NUMBERS = STATE_SIDE // 2 + STATE_SIDE // 4  # of a thread's share: products, and sums of its columns' features
SHARE_BYTES = 4 * NUMBERS * 128
ONES = {"bfloat16": 0x3F803F80, "float16": 0x3C003C00}


@dataclass(frozen=True, slots=True)
class SlotStateTraits:
    """parts: the compression whose slots are read, which come in ``splits`` parts; depth: slots in shared memory, a
    multiple of 64.
    """

    parts: CompressTraits
    splits: int
    feature_map: FeatureMap
    depth: int

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.parts.head_dim), spans(self.parts.value_dim)

    @property
    def parts_at_once(self) -> int:
        """Parts of a slot whose loads are in flight together."""
        return min(self.splits, 2)

    @property
    def turns(self) -> int:
        """Slots of a thread."""
        return self.depth // ROWS

    @property
    def turns_at_once(self) -> int:
        """Those whose loads are: each has two times 8 columns, two loads each."""
        return math.gcd(LOADS // (4 * self.parts_at_once), self.turns)

    @property
    def turns_held(self) -> int:
        """Those whose numbers are in registers at once."""
        return self.turns if self.scaled else self.turns_at_once

    @property
    def scaled(self) -> bool:
        """Whether features are multiplied with a power of two before they are rounded, and the state with another."""
        return is_scaled(self.parts.dtype)

    @property
    def shared_bytes(self) -> int:
        """Features and values of the slots, a word, and 16 bytes a warp."""
        return 2 * self.depth * SPAN_BYTES + 16 + (THREADS // 2 if self.scaled else 0) + ALIGNMENT


def state_depth(dtype: str, slots: int) -> int:
    """The depth for a share of so many slots; without slots that of one step, as an array of none does not compile."""
    return min(max(-(-slots // 64), 1) * 64, LARGEST_SCALED_DEPTH if is_scaled(dtype) else LARGEST_DEPTH)


def slot_state_entry(traits: SlotStateTraits) -> Entry:
    """How the kernel is called."""
    parameters = parameters_of(POINTERS, COUNTS)
    return Entry(ENTRY, parameters, THREADS, 1, traits.shared_bytes, overlaps=True)


def render_slot_state(traits: SlotStateTraits) -> str:
    """Python source of the kernel. Pure and deterministic."""
    parts = traits.parts
    options = f'{STATE_SIDE}, "{parts.dtype}", transposed=True'
    out = start_text(
        slot_state_entry(traits),
        f"Slots to the state of every head, generated for feature map {traits.feature_map.name}.",
        f"head_dim {parts.head_dim}, value_dim {parts.value_dim}, {parts.dtype}; slots come in {traits.splits} parts.",
        {
            "add_products": f"matrix_product({options}, from_registers=False, a_transposed=True)",
            "add_features": f"matrix_product({options}, from_registers=True)",
        },
    )
    with out.suite():
        _emit_start(out, traits)
        with out.block("while slot < last"):
            if traits.scaled:
                for first in range(0, traits.turns, traits.turns_at_once):
                    _emit_loads(out, traits, first)
                _emit_features(out, traits)
                _emit_feature_scale(out, traits)
                _emit_operands(out, traits)
            else:
                with out.block(f"for turn in range(u32(0), u32({traits.turns}), u32({traits.turns_at_once}))"):
                    _emit_loads(out, traits)
                    _emit_features(out, traits)
                    _emit_operands(out, traits)
            out.line("ptx.fence_shared()")
            out.line("ptx.block_barrier()")
            _emit_products(out, traits)
            out.line("ptx.block_barrier()")
            out.line(f"slot = u32(slot + u32({traits.depth}))")
        if traits.scaled:
            with out.block(f"for i in range({STATE_SIDE // 2})"):
                out.line("total[i], sums[i] = total[i] * inverse, sums[i] * inverse")
        with out.block("if shares_of_state > u32(1)"):
            _emit_share(out)
        with out.block("if is_last != u32(0) and warpgroup == u32(0)"):
            _emit_state(out, traits)
    return out.text()


def _emit_start(out: SourceWriter, traits: SlotStateTraits) -> None:
    """Which head, features, values and slots are this block's; where its columns of the parts stand."""
    parts = traits.parts
    emit_shared_start(out, "feature_tile", ALIGNMENT)
    out.lines(
        f"""
        value_tile = u32(feature_tile + u32({traits.depth * SPAN_BYTES}))
        flag = u32(value_tile + u32({traits.depth * SPAN_BYTES}))
        thread = ptx.thread_index()
        lane = u32(thread & u32(31))
        warpgroup = u32(thread >> u32(7))
        """
    )
    emit_state_share(out, traits.blocks)
    out.lines(
        f"""
        slots_of_share = u32((slots + shares_of_state - u32(1)) // shares_of_state)
        slot = u32(min(share * slots_of_share, slots))
        last = u32(min(slot + slots_of_share, slots))
        eighth = u32((thread & u32(7)) * u32(8))
        place = u32((eighth & u32(32)) * u32(2) + ((eighth & u32(24)) >> u32(1)))  # bytes of its first pair's column
        row_in_turn = u32(thread >> u32(3))
        is_last = u32(1)
        total = cuda.local.array({STATE_SIDE // 2}, dtype=np.float32)
        sums = cuda.local.array({STATE_SIDE // 2}, dtype=np.float32)
        for i in range({STATE_SIDE // 2}):
            total[i] = f32(0.0)
            sums[i] = f32(0.0)
        got = cuda.local.array({16 * traits.turns_held}, dtype=np.float32)
        to_part = u64(tiles) * u64({4 * parts.rows * parts.columns})
        """
    )
    for name, dim, first in (("k", parts.head_dim, ""), ("v", parts.value_dim, "tiles_k + ")):
        block = "feature_block" if name == "k" else "value_block"
        out.lines(
            f"""
            span = u32(head * u32({spans(dim)}) + {block})
            tile_pair = u32(span // u32({parts.tile_spans}))
            tile_{name} = u32({first}(entry * pairs_{name} + tile_pair) * row_blocks)
            column = u32((span - tile_pair * u32({parts.tile_spans})) * u32({SPAN}) + eighth)
            {name}_at = parts + u64(4) * u64(column)
            """
        )
    if traits.scaled:
        out.line("inverse = f32(0.0)  # of the features' scale up to now")
    out.line("ptx.allow_launch()")
    out.line("ptx.await_launch()")


def _emit_loads(out: SourceWriter, traits: SlotStateTraits, first: int = 0) -> None:
    """got[16 turn + 8 of_values + i]: the parts of a slot's columns added up; for a slot too many, of the last one.

    first: of the turns that are loaded now; scaled texts have no loop over them.
    """
    parts, turns = traits.parts, range(first, first + traits.turns_at_once)
    if traits.scaled:
        out.line("turn = u32(0)")
    for turn in turns:
        out.lines(
            f"""
            row_{turn} = u32(slot + (turn + u32({turn})) * u32({ROWS}) + row_in_turn)
            kept_{turn} = u32(1) if row_{turn} < last else u32(0)
            row = ptx.select(row_{turn}, u32(last - u32(1)), kept_{turn})
            row_block = u32(row // u32({parts.rows}))
            row = u32(row - row_block * u32({parts.rows}))
            """
        )
        for name in "kv":
            at = f"(u64(tile_{name} + row_block) * u64({parts.rows}) + u64(row))"
            out.line(f"{name}_from_{turn} = {name}_at + u64({4 * parts.columns}) * {at}")
    start, end = 16 * turns.start, 16 * turns.stop
    with out.block(f"for i in range({start}, {end})" if start else f"for i in range({end})"):
        out.line("got[i] = f32(0.0)")
    whole = traits.splits // traits.parts_at_once
    with out.block(f"for step in range({whole})"):
        _emit_parts(out, turns, f"u64(step) * u64({traits.parts_at_once})", traits.parts_at_once)
    if rest := traits.splits % traits.parts_at_once:
        _emit_parts(out, turns, f"u64({traits.splits - rest})", rest)


def _emit_parts(out: SourceWriter, turns: range, first: str, count: int) -> None:
    """Neighbouring parts: all loads, then all sums."""
    every = [(part, turn, of, half) for part in range(count) for turn in turns for of in (0, 1) for half in (0, 1)]
    for part, turn, of, half in every:
        names = ", ".join(f"{letter}_{part}_{turn}_{of}_{half}" for letter in "abcd")
        at = f"{'kv'[of]}_from_{turn} + to_part * ({first} + u64({part})) + u64({16 * half})"
        out.line(f"{names} = ptx.load_reals4({at})")
    for part, turn, of, half in every:
        for i, letter in enumerate("abcd"):
            out.line(f"got[{16 * turn + 8 * of + 4 * half + i}] += {letter}_{part}_{turn}_{of}_{half}")


def _emit_features(out: SourceWriter, traits: SlotStateTraits) -> None:
    """phi of keys; 0 for slots and columns that are not there, unlike phi(0)."""
    parts = traits.parts
    for turn in range(traits.turns_held):
        for i in range(8):
            kept = f"kept_{turn}"
            if parts.head_dim % STATE_SIDE:
                column = f"feature_block * u32({STATE_SIDE}) + eighth + u32({i})"
                kept = f"{kept} if {column} < u32({parts.head_dim}) else u32(0)"
            out.line(f"x = got[{16 * turn + i}]")
            out.line(f"phi = {gpu_text(traits.feature_map.source, 'x')}")
            out.line(f"got[{16 * turn + i}] = ptx.select_real(phi, f32(0.0), {kept})")


def _emit_feature_scale(out: SourceWriter, traits: SlotStateTraits) -> None:
    """Features of these slots, and sums of those before, times a scale that does for both."""
    out.line(f"top = inverse * f32({2.0 ** (TOP - 1)!r})  # what the sums have been scaled by")
    for turn in range(traits.turns_held):
        for i in range(8):
            out.line(f"top = ptx.maximum(top, got[{16 * turn + i}])")
    emit_largest_of_block(out, "top", "flag + u32(16)", THREADS)
    emit_scale(out, "scale", "top", TOP)
    with out.block(f"for i in range({STATE_SIDE // 2})"):
        out.line("total[i], sums[i] = total[i] * (scale * inverse), sums[i] * (scale * inverse)")
    emit_inverse(out, "inverse", "scale")
    for turn in range(traits.turns_held):
        with out.block(f"for i in range({16 * turn}, {16 * turn + 8})"):
            out.line("got[i] = got[i] * scale")


def _emit_operands(out: SourceWriter, traits: SlotStateTraits) -> None:
    """Features and values into shared memory. A pair of columns 8 t + 4 s + 2 h goes to columns 16 s + 8 h + 2 t of its
    chunk of 32.
    """
    parts = traits.parts
    for turn in range(traits.turns_held):
        out.line(f"row = u32((turn + u32({turn})) * u32({ROWS}) + row_in_turn)")
        out.line("swizzle = u32((row & u32(7)) << u32(4))")
        for of, tile in enumerate(("feature_tile", "value_tile")):
            for pair in range(4):  # 2 s + h
                first = 16 * turn + 8 * of + 2 * pair
                at = f"{tile} + row * u32({SPAN_BYTES}) + ((place + u32({16 * pair})) ^ swizzle)"
                word = f"ptx.pack_{parts.dtype}(got[{first}], got[{first + 1}])"
                out.line(f"ptx.store_shared_word({at}, {word}, u32(1))")


def _emit_products(out: SourceWriter, traits: SlotStateTraits) -> None:
    """S^T, and the sums of features in every row. Both warpgroups make them, and the first writes: with a branch round
    the products ptxas serialises them (C7519).
    """
    ones = ", ".join([f"u32({ONES[traits.parts.dtype]})"] * 4)
    out.lines(
        f"""
        features = u64({values_descriptor(traits.depth)}) | u64(feature_tile >> u32(4))
        values = u64({values_descriptor(traits.depth)}) | u64(value_tile >> u32(4))
        ptx.wgmma_fence()
        """
    )
    for step in range(traits.depth // 16):
        out.line(f"add_products(total, values + u64({128 * step}), features + u64({128 * step}), u32(1))")
        out.line(f"add_features(sums, {ones}, features + u64({128 * step}))")
    out.line("ptx.wgmma_commit()")
    out.line("ptx.wgmma_wait_all()")


def _emit_share(out: SourceWriter) -> None:
    """Leave this block's share; who comes last adds up all of them in their order, which is the same at every run."""
    fours = [*(f"total[{i}]" for i in range(STATE_SIDE // 2))]
    fours += [f"sums[{4 * j + x}]" for j in range(STATE_SIDE // 8) for x in (0, 1)]
    out.lines(
        f"""
        share_at = shares + u64({SHARE_BYTES}) * (u64(state) * u64(shares_of_state)) + u64(16) * u64(thread)
        to = share_at + u64({SHARE_BYTES}) * u64(share)
        mine = u32(1) if warpgroup == u32(0) else u32(0)
        """
    )
    for i in range(0, NUMBERS, 4):
        out.line(f"ptx.store_reals4(to + u64({128 * 4 * i}), {', '.join(fours[i : i + 4])}, mine)")
    emit_last_share(out, "flag")
    with out.block("if is_last != u32(0) and warpgroup == u32(0)"):
        out.lines(
            f"""
            for i in range({STATE_SIDE // 2}):
                total[i] = f32(0.0)
                sums[i] = f32(0.0)
            """
        )
        with out.block("for other in range(shares_of_state)"):
            out.line(f"at = share_at + u64({SHARE_BYTES}) * u64(other)")
            for i in range(0, NUMBERS, 4):
                out.line(f"a_{i}, b_{i}, c_{i}, d_{i} = ptx.load_reals4(at + u64({128 * 4 * i}))")
            for i in range(NUMBERS):
                out.line(f"{fours[i]} += {'abcd'[i % 4]}_{i - i % 4}")


def _emit_state_scale(out: SourceWriter) -> None:
    """S^T and the sums times the scale of this block's features; four lanes have all of their sums."""
    out.line("largest = f32(0.0)")
    for j in range(STATE_SIDE // 8):
        for x in (0, 1):
            out.line(f"largest = ptx.maximum(largest, ptx.maximum(sums[{4 * j + x}], -sums[{4 * j + x}]))")
    for apart in (1, 2):
        out.line(f"largest = ptx.maximum(largest, ptx.shuffle_xor(largest, u32({apart})))")
    emit_scale(out, "scale", "largest")
    with out.block(f"for i in range({STATE_SIDE // 2})"):
        out.line("total[i], sums[i] = total[i] * scale, sums[i] * scale")


def _emit_state(out: SourceWriter, traits: SlotStateTraits) -> None:
    """A lane has two rows of S^T, and of every 8 columns two; of the sums 8 rows are written."""
    parts = traits.parts
    values = CHUNK * chunks(parts.value_dim)
    if traits.scaled:
        _emit_state_scale(out)
    out.lines(
        f"""
        row_in_block = u32((thread >> u32(5)) * u32(16) + (lane >> u32(2)))
        to = states + u64({state_bytes(parts.head_dim, parts.value_dim)}) * u64(pair)
        to = to + u64({state_rows(parts.value_dim) * SPAN_BYTES}) * u64(feature_block)
        """
    )
    for further in (0, 1):
        out.line(f"row = u32(value_block * u32({STATE_SIDE}) + row_in_block + u32({8 * further}))")
        out.line(f"real = u32(1) if row < u32({values}) else u32(0)")
        _emit_row(out, parts.dtype, "total", 2 * further, "real")
    out.line(f"row = u32(u32({values}) + row_in_block)")
    out.line(f"real = u32(1) if row_in_block < u32({SUM_ROWS}) and value_block == u32(0) else u32(0)")
    if traits.scaled:
        emit_carrier(out, "scale", "row_in_block")
    _emit_row(out, parts.dtype, "sums", 0, "real", carries=traits.scaled)


def _emit_row(out: SourceWriter, dtype: str, name: str, first: int, when: str, *, carries: bool = False) -> None:
    """The lane's words of ``row``, at their swizzled places. carries: see emit_image_row()."""
    out.line(f"to_row = to + u64({SPAN_BYTES}) * u64(row)")
    for j in range(STATE_SIDE // 8):
        word = f"ptx.pack_{dtype}({name}[{4 * j + first}], {name}[{4 * j + first + 1}])"
        if carries:
            word = f"ptx.select(carried, {word}, carries)"
        at = f"u64((u32({16 * j}) + ((lane & u32(3)) << u32(2))) ^ ((row & u32(7)) << u32(4)))"
        out.line(f"ptx.store_word(to_row + {at}, {word}, {when})")
