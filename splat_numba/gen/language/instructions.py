"""The GPU instructions that generated text may use, each once: name, operands, assembly, and what it means.

CUDA Python lacks most of them, so a text calls them as ``ptx.<name>(...)`` and runtime.cuda.compilers make each a
function of theirs. What one means is a function here where it only makes numbers from numbers; what memory, barriers
and copies do is in the emulator, which cannot be imported if an instruction has no meaning, or two. Families (matrix
products, register counts) are made by a factory for their constants. Sources: the PTX ISA 8.x manual, sections on
mbarrier, cp.async.bulk.tensor, wgmma, setmaxnreg, fence.proxy.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from splat_numba.gen.language import fragments, lane_values

MATRIX_TYPE: Final = {"bfloat16": "bf16", "float16": "f16"}


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. results, operands: a kind each, as inline assembly names them (r: uint32, l: uint64, f:
    float32, d: float64), several results a tuple. assembly: $0, $1 ... stand for results, then operands. ordered: it
    must not be moved, repeated or dropped (it touches memory or synchronises). meaning: on vectors of lanes, None for
    what the emulator does.
    """

    name: str
    results: str
    operands: str
    assembly: str
    ordered: bool = True
    meaning: Callable[..., Any] | None = None


def _when(assembly: str, last: int) -> str:
    """The instruction where operand ``last`` is not 0: lane-varying decisions are predicates, never branches."""
    return f"{{ .reg .pred p; setp.ne.b32 p, ${last}, 0; @p {assembly} }}"


def _value(
    meaning: Callable[..., Any], results: str, operands: str, assembly: str, *, ordered: bool = False
) -> Instruction:
    """One that makes numbers from numbers, named as the function that says which."""
    return Instruction(meaning.__name__, results, operands, assembly, ordered, meaning)


_BULK = "cp.async.bulk{}.shared::cluster.global.mbarrier::complete_tx::bytes {};"
_UNPACK = "{{ .reg .b16 a, b; mov.b32 {{a, b}}, $2; cvt.f32.{0} $0, a; cvt.f32.{0} $1, b; }}"
_MMA = (
    "mma.sync.aligned.m16n8k16.row.col.f32.{0}.{0}.f32 "
    "{{$0, $1, $2, $3}}, {{$4, $5, $6, $7}}, {{$8, $9}}, {{$10, $11, $12, $13}};"
)
_MMA_TF32 = _MMA.format("tf32").replace("m16n8k16", "m16n8k8")
_COPY = _BULK.format(".tensor.5d", "[$0], [$1, {$3, $4, $5, $6, $7}], [$2]")

INSTRUCTIONS: Final = (
    # Where a thread is.
    Instruction("thread_index", "r", "", "mov.u32 $0, %tid.x;", ordered=False),
    Instruction("block_index", "r", "", "mov.u32 $0, %ctaid.x;", ordered=False),
    Instruction("grid_size", "r", "", "mov.u32 $0, %nctaid.x;", ordered=False),
    # Barriers in shared memory: address, then count, bytes or parity; `when` is 0 or 1 for each lane.
    Instruction("mbarrier_init", "", "rr", "mbarrier.init.shared::cta.b64 [$0], $1;"),
    Instruction("mbarrier_arrive", "", "rr", _when("mbarrier.arrive.shared::cta.b64 _, [$0];", 1)),
    Instruction(
        "mbarrier_expect", "", "rrr", _when("mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;", 2)
    ),  # arrives, and adds bytes to be copied
    Instruction(
        "mbarrier_wait",
        "",
        "rr",
        "{ .reg .pred p; AGAIN: mbarrier.try_wait.parity.shared::cta.b64 p, [$0], $1; @p bra DONE; bra AGAIN; DONE: }",
    ),
    Instruction("block_barrier", "", "", "bar.sync 0;"),
    Instruction("warp_barrier", "", "", "bar.warp.sync -1;"),
    # Fences between the ways to memory.
    Instruction("fence_mbarrier_init", "", "", "fence.mbarrier_init.release.cluster;"),
    Instruction("fence_shared", "", "", "fence.proxy.async.shared::cta;"),  # ordinary stores before the copy engine
    Instruction("fence_device", "", "", "fence.acq_rel.gpu;"),  # between blocks
    Instruction("fence_tensor_map", "", "l", "fence.proxy.tensormap::generic.acquire.sys [$0], 128;"),
    # Between launches: await_launch() returns once the launch before this one has ended and its writes are seen, where
    # the two may overlap, else at once; allow_launch() lets the next one begin when all blocks have said so or ended.
    Instruction("await_launch", "", "", "griddepcontrol.wait;"),
    Instruction("allow_launch", "", "", "griddepcontrol.launch_dependents;"),
    # A box of a tensor into shared memory: to, map, barrier, (dim, c1, c2, head, batch), when.
    Instruction("tensor_copy", "", "rlrrrrrrr", _when(_COPY, 8)),
    # Bytes as they are, a multiple of 16: to, from, how many, barrier, when.
    Instruction(
        "bulk_copy",
        "",
        "rlrrr",
        _when(_BULK.format("", "[$0], [$1], $2, [$3]"), 4),
    ),
    # 16 bytes a lane: to, from, when. What was issued since the last commit is a group; async_wait() waits for groups.
    Instruction("async_copy", "", "rlr", _when("cp.async.cg.shared.global [$0], [$1], 16;", 2)),
    Instruction("async_commit", "", "", "cp.async.commit_group;"),
    # Warpgroup matrix products: order between groups of them.
    Instruction("wgmma_fence", "", "", "wgmma.fence.sync.aligned;"),
    Instruction("wgmma_commit", "", "", "wgmma.commit_group.sync.aligned;"),
    Instruction("wgmma_wait_all", "", "", "wgmma.wait_group.sync.aligned 0;"),
    Instruction("wgmma_wait_but_one", "", "", "wgmma.wait_group.sync.aligned 1;"),
    # Numbers.
    _value(lane_values.exp2, "f", "f", "ex2.approx.ftz.f32 $0, $1;"),
    _value(lane_values.log2, "f", "f", "lg2.approx.f32 $0, $1;"),
    _value(lane_values.reciprocal, "f", "f", "rcp.approx.f32 $0, $1;"),
    _value(lane_values.square_root, "f", "f", "sqrt.approx.ftz.f32 $0, $1;"),
    # Within 5e-7 for angles up to thousands: turns of 2 pi = 6.28125 + 0.0019353072 are taken off first, since the
    # approximations are that good between -pi and pi only. 6.28125 has 8 bits, so up to 2**16 turns of it are exact.
    _value(
        lane_values.sine_cosine,
        "ff",
        "f",
        "{ .reg .f32 turns, rest; mul.f32 turns, $2, 0f3E22F983; cvt.rni.f32.f32 turns, turns; "
        "fma.rn.f32 rest, turns, 0fC0C90000, $2; fma.rn.f32 rest, turns, 0fBAFDAA22, rest; "
        "sin.approx.ftz.f32 $0, rest; cos.approx.ftz.f32 $1, rest; }",
    ),
    _value(lane_values.maximum, "f", "ff", "max.f32 $0, $1, $2;"),
    _value(lane_values.pack_bfloat16, "r", "ff", "cvt.rn.bf16x2.f32 $0, $2, $1;"),  # low half first
    _value(lane_values.pack_float16, "r", "ff", "cvt.rn.f16x2.f32 $0, $2, $1;"),
    _value(lane_values.unpack_bfloat16, "ff", "r", _UNPACK.format("bf16")),
    _value(lane_values.unpack_float16, "ff", "r", _UNPACK.format("f16")),
    # The words of numbers, as they are: float64 goes through memory and between lanes as two, the low one first.
    _value(lane_values.real_bits, "r", "f", "mov.b32 $0, $1;"),
    # float32 for products of TF32: rounded, or as a number of TF32 and the rest. cvt.rna would be infinite near the
    # largest number, and takes a comparison more.
    _value(lane_values.round_tf32, "r", "r", "{ .reg .f32 x; mov.b32 x, $1; cvt.rna.tf32.f32 $0, x; }"),
    _value(
        lane_values.split_rounded,
        "rr",
        "r",
        "{ .reg .b32 w; .reg .f32 x, y; add.u32 w, $2, 0x1000; and.b32 w, w, 0xFFFFE000; mov.b32 x, $2; mov.b32 y, w; "
        "min.f32 y, y, 0f7F7FE000; max.f32 y, y, 0fFF7FE000; sub.f32 x, x, y; mov.b32 $0, y; mov.b32 $1, x; }",
        ordered=True,
    ),
    _value(
        lane_values.split_truncated,
        "rr",
        "r",
        "{ .reg .b32 w; .reg .f32 x, y; and.b32 w, $2, 0xFFFFE000; mov.b32 x, $2; mov.b32 y, w; sub.f32 x, x, y; "
        "mov.b32 $0, w; mov.b32 $1, x; }",
        ordered=True,
    ),
    # The same by a mask that the compiler does not know: else it multiplies what is not cut off, which is the same for
    # a product, and moves that to where products want their operands.
    _value(
        lane_values.split_by_mask,
        "rr",
        "rr",
        "{ .reg .b32 w; .reg .f32 x, y; and.b32 w, $2, $3; mov.b32 x, $2; mov.b32 y, w; sub.f32 x, x, y; "
        "mov.b32 $0, w; mov.b32 $1, x; }",
        ordered=True,
    ),
    _value(lane_values.join_double, "d", "rr", "mov.b64 $0, {$1, $2};"),
    _value(lane_values.split_double, "rr", "d", "mov.b64 {$0, $1}, $2;"),
    # The first where the third is not 0, else the second: Numba takes seconds to compile a text with many branches.
    _value(lane_values.select, "r", "rrr", "{ .reg .pred p; setp.ne.b32 p, $3, 0; selp.b32 $0, $1, $2, p; }"),
    _value(lane_values.select_real, "f", "ffr", "{ .reg .pred p; setp.ne.b32 p, $3, 0; selp.f32 $0, $1, $2, p; }"),
    # Between the lanes of a warp.
    _value(lane_values.shuffle_xor, "f", "fr", "shfl.sync.bfly.b32 $0, $1, $2, 31, -1;", ordered=True),
    _value(lane_values.shuffle_xor_word, "r", "rr", "shfl.sync.bfly.b32 $0, $1, $2, 31, -1;", ordered=True),
    _value(
        lane_values.any_lane,
        "r",
        "r",
        "{ .reg .pred p, q; setp.ne.b32 p, $1, 0; vote.sync.any.pred q, p, -1; selp.u32 $0, 1, 0, q; }",
        ordered=True,
    ),
    # An (8, 8) matrix of 16-bit numbers, two a lane as in load_matrices: rows become columns.
    _value(fragments.transpose_matrix, "r", "r", "movmatrix.sync.aligned.m8n8.trans.b16 $0, $1;", ordered=True),
    _value(lane_values.word_of_lane, "r", "rr", "shfl.sync.idx.b32 $0, $1, $2, 31, -1;", ordered=True),
    # A warp's matrix product: A (16, 16) in four words, B (16, 8) in two, sums (16, 8) in four.
    _value(fragments.mma_bfloat16, "ffff", "rrrrrrffff", _MMA.format("bf16"), ordered=True),
    _value(fragments.mma_float16, "ffff", "rrrrrrffff", _MMA.format("f16"), ordered=True),
    # The same of TF32: A (16, 8) in four words, B (8, 8) in two. Of a float32's bits the last 13 are cut off.
    _value(fragments.mma_tf32, "ffff", "rrrrrrffff", _MMA_TF32, ordered=True),
    # Memory. Tables do not change while a kernel runs, so they are read through the read-only path; ordered, because a
    # read that stands early in a text stands there to hide its latency.
    Instruction("load_word", "r", "l", "ld.global.nc.b32 $0, [$1];"),
    Instruction("load_words4", "rrrr", "l", "ld.global.nc.v4.b32 {$0, $1, $2, $3}, [$4];"),
    Instruction(
        "load_words4_when",  # zeros where `when` is 0
        "rrrr",
        "lr",
        "{ .reg .pred p; setp.ne.b32 p, $5, 0; mov.b32 $0, 0; mov.b32 $1, 0; mov.b32 $2, 0; mov.b32 $3, 0; "
        "@p ld.global.nc.v4.b32 {$0, $1, $2, $3}, [$4]; }",
    ),
    Instruction("load_reals4", "ffff", "l", "ld.global.v4.f32 {$0, $1, $2, $3}, [$4];"),
    Instruction("load_state", "f", "l", "ld.global.f32 $0, [$1];"),
    Instruction(
        "load_real_when",  # 0 where `when` is 0
        "f",
        "lr",
        "{ .reg .pred p; setp.ne.b32 p, $2, 0; mov.f32 $0, 0f00000000; @p ld.global.f32 $0, [$1]; }",
    ),
    Instruction("load_pair", "r", "l", "ld.global.b32 $0, [$1];"),
    Instruction("store_word", "", "lrr", _when("st.global.b32 [$0], $1;", 2)),
    Instruction(
        "store_half",  # the lower 16 bits of the word
        "",
        "lrr",
        "{ .reg .pred p; .reg .b16 h; setp.ne.b32 p, $2, 0; cvt.u16.u32 h, $1; @p st.global.b16 [$0], h; }",
    ),
    Instruction("store_words4", "", "lrrrrr", _when("st.global.v4.b32 [$0], {$1, $2, $3, $4};", 5)),
    Instruction("store_real", "", "lfr", _when("st.global.f32 [$0], $1;", 2)),
    Instruction("store_reals4", "", "lffffr", _when("st.global.v4.f32 [$0], {$1, $2, $3, $4};", 5)),
    Instruction("store_reals2", "", "lffr", _when("st.global.v2.f32 [$0], {$1, $2};", 3)),
    Instruction(
        "fetch_add",
        "r",
        "lrr",
        "{ .reg .pred p; setp.ne.b32 p, $3, 0; mov.b32 $0, 0; @p atom.global.add.u32 $0, [$1], $2; }",
    ),
    Instruction("load_shared_word", "r", "r", "ld.shared.b32 $0, [$1];"),
    Instruction("load_shared_words4", "rrrr", "r", "ld.shared.v4.b32 {$0, $1, $2, $3}, [$4];"),
    Instruction("load_shared_reals2", "ff", "r", "ld.shared.v2.f32 {$0, $1}, [$2];"),
    Instruction("load_shared_reals4", "ffff", "r", "ld.shared.v4.f32 {$0, $1, $2, $3}, [$4];"),
    # Four (8, 8) matrices of 16-bit numbers. Lane l has the address of row l % 8 of matrix l // 8, and gets of each
    # numbers 2 (l % 4) and the next of row l // 4; transposed: of column l // 4.
    Instruction("load_matrices", "rrrr", "r", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {$0, $1, $2, $3}, [$4];"),
    Instruction(
        "load_matrices_transposed",
        "rrrr",
        "r",
        "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {$0, $1, $2, $3}, [$4];",
    ),
    Instruction("store_shared_word", "", "rrr", _when("st.shared.b32 [$0], $1;", 2)),
    Instruction("store_shared_words4", "", "rrrrrr", _when("st.shared.v4.b32 [$0], {$1, $2, $3, $4};", 5)),
    Instruction("store_shared_reals4", "", "rffffr", _when("st.shared.v4.f32 [$0], {$1, $2, $3, $4};", 5)),
)

# What a text calls as well: made for its constants, or given an array.
FAMILIES: Final = ("claim_registers", "release_registers", "async_wait", "matrix_product", "shared_address")


def set_registers(count: int, *, claim: bool) -> Instruction:
    """A warpgroup's registers a thread from here on; ``claim`` more, or release some. count: a multiple of 8."""
    verb = "inc" if claim else "dec"
    name = f"{'claim' if claim else 'release'}_registers_{count}"
    return Instruction(name, "", "", f"setmaxnreg.{verb}.sync.aligned.u32 {count};")


def wait_groups(left: int) -> Instruction:
    """Wait for async_copy's groups, of this thread, but for the last ``left``."""
    return Instruction(f"async_wait_{left}", "", "", f"cp.async.wait_group {left};")


@dataclass(frozen=True, slots=True)
class MatrixProduct:
    """wgmma: accumulator (64, columns) float32 += A (64, 16) x B (16, columns), B in shared memory by descriptor.

    A comes from shared memory (descriptor) or registers (4 words). transposed: B is stored with its columns together,
    as values are; otherwise with the 16 together, as keys are. a_transposed: A in shared memory is stored with its rows
    together. fresh: the accumulator becomes the product, and what it held is not read, so that until then its registers
    are free. Lane l of warp w holds rows 16 w + l // 4 (+ 8) and
    columns 8 j + 2 (l % 4) (+ 1), in the order accumulator[4 j + 2 (row + 8) + (column + 1)].
    """

    columns: int
    dtype: str
    from_registers: bool
    transposed: bool
    a_transposed: bool = False
    fresh: bool = False

    @property
    def registers(self) -> int:
        """Accumulators of a thread."""
        return self.columns // 2

    @property
    def operands(self) -> str:
        """Kinds after the accumulator: A, the descriptor of B, and where A is in shared memory whether to add, unless
        fresh.
        """
        if self.from_registers:
            return "rrrrl"
        return "ll" if self.fresh else "llr"

    @property
    def assembly(self) -> str:
        """The text; the accumulators are results and, tied to them, the first operands, unless fresh."""
        count, kind = self.registers, MATRIX_TYPE[self.dtype]
        accumulators = ", ".join(f"${i}" for i in range(count))
        first = count if self.fresh else 2 * count
        verb = f"wgmma.mma_async.sync.aligned.m64n{self.columns}k16.f32.{kind}.{kind} {{{accumulators}}}"
        if self.from_registers:
            a = ", ".join(f"${first + i}" for i in range(4))
            return f"{verb}, {{{a}}}, ${first + 4}, {int(not self.fresh)}, 1, 1, {int(self.transposed)};"
        if self.fresh:
            return f"{verb}, ${first}, ${first + 1}, 0, 1, 1, {int(self.a_transposed)}, {int(self.transposed)};"
        return (
            f"{{ .reg .pred p; setp.ne.b32 p, ${first + 2}, 0; "
            f"{verb}, ${first}, ${first + 1}, p, 1, 1, {int(self.a_transposed)}, {int(self.transposed)}; }}"
        )
