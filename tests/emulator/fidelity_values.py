"""Cases of the instructions on numbers and between lanes."""

import numpy as np
from numpy.testing import assert_array_equal

from tests.emulator.fidelity import Case, random_words, uniform_reals

COUNT = 1024
# float32 whose bits or values are special: zeros, ones, infinities, NaN of several kinds, subnormal and extreme numbers
SPECIAL = np.array(
    [
        0, 0x80000000, 0x3F800000, 0xBF800000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF,
        0x7FFFFFFF, 0x00000001, 0x80000001, 0x007FFFFF, 0x807FFFFF, 0x00800000, 0x80800000, 0x7F7FFFFF, 0xFF7FFFFF,
        0x00400000, 0x7E800000, 0x7F000000, 0x7F000001,
    ],
    np.uint32,
)  # fmt: skip


def reals(seed, *ranges):
    """Special numbers, any bits, and numbers of each range."""
    parts = [SPECIAL, random_words(seed, COUNT // 2)]
    left = COUNT - sum(part.size for part in parts)
    sizes = [left // len(ranges)] * (len(ranges) - 1)
    for i, size in enumerate([*sizes, left - sum(sizes)]):
        parts.append(uniform_reals(seed + 1 + i, size, *ranges[i]))
    return np.concatenate(parts)


def ties(seed, dropped):
    """float32 half way between, or next to half way between, two numbers with ``dropped`` bits fewer."""
    words = random_words(seed, COUNT) & np.uint32(0xFFFFFFFF << dropped & 0xFFFFFFFF) | np.uint32(1 << dropped - 1)
    return words + (random_words(seed + 1, COUNT) % np.uint32(3)) - np.uint32(1)


def pairs(first, second):
    """First numbers, then second ones: every special number with every other, then what is given."""
    firsts, seconds = (part.reshape(-1) for part in np.meshgrid(SPECIAL, SPECIAL, indexing="ij"))
    more = 2 * COUNT - firsts.size
    return np.concatenate([firsts, first[:more], seconds, second[:more]])


def each(expression, count, loads=1, kind="state", stores=("store_real",)):
    """A loop that applies an expression in a, b, c to ``count`` numbers, and stores its results."""
    lines = [f"for i in range({count // 32}):", "    place = u64(4) * u64(lane + u32(32 * i))"]
    lines += [f"    {'abc'[j]} = ptx.load_{kind}(source + u64({4 * count * j}) + place)" for j in range(loads)]
    names = "xy"[: len(stores)]
    lines.append(f"    {', '.join(names)} = {expression}")
    for j, (name, store) in enumerate(zip(names, stores, strict=True)):
        lines.append(f"    ptx.{store}(target + u64({4 * count * j}) + place, {name}, u32(1))")
    return "\n".join(lines)


def within(relative, absolute=lambda _x: 0.0):
    """Infinities, zeros and NaN alike; else a relative or absolute difference (of inputs x) of the larger bound."""

    def agree(case, emulated, hardware):
        e, h = emulated.view(np.float32).astype(np.float64), hardware.view(np.float32).astype(np.float64)
        allowed = np.maximum(relative * np.abs(e), absolute(case.source.view(np.float32)))
        plain = np.isfinite(e) & (e != 0)
        assert_array_equal(emulated[~plain], hardware[~plain])
        with np.errstate(invalid="ignore"):
            worst = np.flatnonzero(plain & ~(np.abs(e - h) <= allowed))
        assert worst.size == 0, f"{case.name}: of {case.source[worst]}, {e[worst]} wanted, got {h[worst]} of hardware"

    return agree


def absolutely(bound):
    """Within a bound, whatever the number's size."""

    def agree(case, emulated, hardware):
        difference = np.abs(emulated.view(np.float32).astype(np.float64) - hardware.view(np.float32))
        assert difference.max() <= bound, f"{case.name}: off by {difference.max():.3g}"

    return agree


HALF_UNIT = 2.0**-24  # what the emulator's own rounding adds to the bounds of the PTX manual
ex2_bound = within(2.0**-22 + HALF_UNIT)
lg2_bound = within(2.0**-22 + HALF_UNIT, lambda x: np.where((x > 0.5) & (x < 2.0), 2.0**-22 + HALF_UNIT, 0.0))
rcp_bound = within(2.0**-23 + HALF_UNIT)


def _cases():
    yield Case(
        "places", ("thread_index", "block_index", "grid_size"),
        """
        block = ptx.block_index()
        place = u64(4) * u64(block * u32(64) + thread)
        ptx.store_word(target + place, thread | (block << u32(8)) | (ptx.grid_size() << u32(16)), u32(1))
        """,
        np.zeros(4, np.uint32), 192, threads=64, grid=3,
    )  # fmt: skip
    for name, ranges, bound in (
        ("exp2", [(-130, 130), (-2, 2)], ex2_bound),
        ("log2", [(0, 10), (0.4, 2.1), (0.999, 1.001)], lg2_bound),
        ("reciprocal", [(-10, 10), (1, 2)], rcp_bound),
    ):
        yield Case(name, (name,), each(f"ptx.{name}(a)", COUNT), reals(len(name), *ranges), COUNT, agree=bound)
    yield Case("square_root", ("square_root",), each("ptx.square_root(a)", COUNT), reals(9, (0, 10), (0, 1e30)), COUNT,
               agree=within(2.0**-23 + HALF_UNIT))  # fmt: skip
    angles = np.concatenate([uniform_reals(13, 960, -2000, 2000), np.zeros(64, np.uint32)])
    yield Case("sine_cosine", ("sine_cosine",),
               each("ptx.sine_cosine(a)", COUNT, stores=("store_real", "store_real")), angles, 2 * COUNT,
               agree=absolutely(2.0**-20))  # fmt: skip
    two = pairs(random_words(30, 2 * COUNT), random_words(31, 2 * COUNT))
    yield Case("maximum", ("maximum",), each("ptx.maximum(a, b)", 2 * COUNT, 2), two, 2 * COUNT)
    for dtype, dropped, span in (("bfloat16", 16, 3e38), ("float16", 13, 7e4)):
        small = 2.0**-24 if dtype == "float16" else 2.0**-132
        first = np.concatenate([ties(40, dropped), uniform_reals(41, COUNT, -span, span)])
        second = np.concatenate([uniform_reals(42, COUNT, -4 * small, 4 * small), reals(43, (-65600, 65600))])
        yield Case(
            f"pack_{dtype}", (f"pack_{dtype}",),
            each(f"ptx.pack_{dtype}(a, b)", 2 * COUNT, 2, stores=("store_word",)),
            pairs(first, second), 2 * COUNT,
        )  # fmt: skip
        every = (np.arange(65536, dtype=np.uint32) * np.uint32(65537))[:: 65536 // 2 // COUNT + 1]
        some = np.concatenate([every[: 2 * COUNT - 512], random_words(44, 512) | np.uint32(0x7C00)])
        yield Case(
            f"unpack_{dtype}", (f"unpack_{dtype}",),
            each(f"ptx.unpack_{dtype}(a)", some.size, 1, "word", ("store_real", "store_real")), some, 2 * some.size,
        )  # fmt: skip
    words = np.concatenate([ties(55, 13), reals(56, (-10, 10))])
    yield Case("round_tf32", ("round_tf32",), each("ptx.round_tf32(a)", words.size, 1, "word", ("store_word",)), words,
               words.size)  # fmt: skip
    for name in ("split_rounded", "split_truncated"):
        body = each(f"ptx.{name}(a)", words.size, 1, "word", ("store_word", "store_word"))
        yield Case(name, (name,), body, words, 2 * words.size)
    masks = np.where(np.arange(words.size) % 8, np.uint32(0xFFFFE000), random_words(57, words.size))
    body = each("ptx.split_by_mask(a, b)", words.size, 2, "word", ("store_word", "store_word"))
    yield Case("split_by_mask", ("split_by_mask",), body, np.concatenate([words, masks]), 2 * words.size)
    yield Case("real_bits", ("real_bits",), each("ptx.real_bits(a)", COUNT, stores=("store_word",)),
               reals(52, (-10, 10)), COUNT)  # fmt: skip
    words = np.concatenate([random_words(53, 2 * COUNT), SPECIAL, SPECIAL[::-1], random_words(54, 18)])
    both = each("ptx.split_double(ptx.join_double(a, b))", words.size // 2, 2, "word", ("store_word", "store_word"))
    yield Case("doubles", ("join_double", "split_double"), both, words, words.size)
    chosen = np.concatenate([random_words(50, 256), random_words(51, 128) & np.uint32(1 << 31 | 1)])
    chosen[::3] = 0
    yield Case("select", ("select",), each("ptx.select(a, b, c)", 128, 3, "word", ("store_word",)), chosen, 128)
    body = each("ptx.select_real(a, b, ptx.load_word(source + u64(1024) + place))", 128, 2)
    yield Case("select_real", ("select_real",), body, chosen, 128)
    yield from _lanes()


def _lanes():
    source = random_words(60, 2048)
    masks = [0, 1, 2, 4, 8, 16, 31, 13, 33, 64]
    body = ["a = ptx.load_word(source + u64(4) * u64(lane))", "x = ptx.load_state(source + u64(4) * u64(lane))"]
    body += ["mine = ptx.load_word(source + u64(128) + u64(4) * u64(lane))", "at = target + u64(4) * u64(lane)"]
    operands = [f"u32({mask})" for mask in masks] + ["mine", "lane"]
    for i, operand in enumerate(operands):
        body.append(f"ptx.store_real(at + u64({384 * i}), ptx.shuffle_xor(x, {operand}), u32(1))")
        body.append(f"ptx.store_word(at + u64({384 * i + 128}), ptx.shuffle_xor_word(a, {operand}), u32(1))")
        body.append(f"ptx.store_word(at + u64({384 * i + 256}), ptx.word_of_lane(a, {operand}), u32(1))")
    proved = ("shuffle_xor", "shuffle_xor_word", "word_of_lane")
    yield Case("shuffles", proved, "\n".join(body), source[:64], 96 * len(operands))
    body = each("ptx.transpose_matrix(a)", 256, 1, "word", ("store_word",))
    yield Case("matrices transposed", ("transpose_matrix",), body, random_words(63, 256), 256)
    votes = np.where(random_words(61, 1024) % np.uint32(40) == 0, random_words(62, 1024), np.uint32(0))
    votes[:64] = 0
    votes[40] = 1 << 31
    yield Case("votes", ("any_lane",), each("ptx.any_lane(a)", 1024, 1, "word", ("store_word",)), votes, 1024)


CASES = tuple(_cases())
