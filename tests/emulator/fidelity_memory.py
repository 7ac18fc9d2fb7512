"""Cases of loads, stores, barriers and copies: their answers depend on order, phases, predicates and places."""

import numpy as np

from splat_numba.gen.schedules.tensor_map import TensorMapArguments
from tests.emulator.fidelity import Case, random_words

PERMUTED = "u64((lane * u32(5) + u32(3)) & u32(31))"

LOADS = f"""
    mine = {PERMUTED}
    at = target + u64(4) * u64(lane)
    ptx.store_word(at, ptx.load_word(source + u64(4) * mine), u32(1))
    ptx.store_word(at + u64(128), ptx.load_pair(source + u64(4) * mine), u32(1))
    ptx.store_real(at + u64(256), ptx.load_state(source + u64(4) * mine), u32(1))
    a, b, c, d = ptx.load_words4(source + u64(16) * mine)
    ptx.store_word(at + u64(384), a, u32(1))
    ptx.store_word(at + u64(512), b, u32(1))
    ptx.store_word(at + u64(640), c, u32(1))
    ptx.store_word(at + u64(768), d, u32(1))
    e, f, g, h = ptx.load_words4(source + u64(32))
    ptx.store_word(at + u64(896), (e ^ f) + (g ^ h), u32(1))
"""

STORES = f"""
    mine = {PERMUTED}
    a, b, c, d = ptx.load_words4(source + u64(16) * u64(lane))
    x = ptx.load_state(source + u64(4) * u64(lane))
    when = ptx.load_word(source + u64(512) + u64(4) * u64(lane))
    ptx.store_word(target + u64(4) * mine, a, when)
    ptx.store_real(target + u64(128) + u64(4) * mine, x, when)
    ptx.store_words4(target + u64(256) + u64(16) * mine, a, b, c, d, when)
    ptx.store_word(u64(0) if when == u32(0) else target + u64(768) + u64(4) * u64(lane), a, when)
    ptx.store_word(target + u64(896) + u64(4) * u64(lane), lane, u32(0))
"""

# Neighbouring halves of a word, by lanes far apart: each keeps what the other stores; some stay as they were.
HALVES = f"""
    mine = {PERMUTED}
    when = ptx.load_word(source + u64(512) + u64(4) * u64(lane))
    ptx.store_half(target + u64(2) * mine, ptx.load_word(source + u64(4) * u64(lane)), u32(1))
    ptx.store_half(target + u64(64) + u64(2) * mine, ptx.load_word(source + u64(4) * mine), when)
    ptx.store_half(u64(0) if when == u32(0) else target + u64(128) + u64(2) * u64(lane), lane, when)
"""

# A counter that all threads take from, so that each number is taken once; sums; and a word of each lane's own. The
# answer is 2**32 - 1 before anything is written.
FETCH_ADD = """
    even = u32(1) if (lane & u32(1)) == u32(0) else u32(0)
    before = ptx.fetch_add(target, u32(1), even)
    taken = u32(before + u32(1)) if even != u32(0) else u32(0)
    ptx.store_word(target + u64(64) + u64(4) * u64(taken), u32(1000) + taken, even)
    ptx.store_word(target + u64(1024) + u64(4) * u64(thread), before if even == u32(0) else u32(7), u32(1))
    sums = target + u64(16) + u64(4) * u64(lane & u32(3))
    ignored = ptx.fetch_add(sums, ptx.load_word(source + u64(4) * u64(thread)), u32(1))
    mine = target + u64(1536) + u64(4) * u64(ptx.block_index() * u32(64) + thread)
    first = ptx.fetch_add(mine, u32(thread * u32(3)), u32(1))
    second = ptx.fetch_add(mine, u32(4294967295), u32(1))
    ptx.store_word(mine + u64(1024), first ^ (second << u32(8)), u32(1))
"""

REALS = f"""
    mine = {PERMUTED}
    when = ptx.load_word(source + u64(512) + u64(4) * u64(lane))
    a, b, c, d = ptx.load_words4_when(u64(0) if when == u32(0) else source + u64(16) * mine, when)
    ptx.store_words4(target + u64(16) * u64(lane), a, b, c, d, u32(1))
    e, f, g, h = ptx.load_reals4(source + u64(16) * mine)
    x = ptx.load_real_when(u64(0) if when == u32(0) else source + u64(4) * mine, when)
    ptx.store_real(target + u64(1792) + u64(4) * u64(lane), x, u32(1))
    ptx.store_reals4(target + u64(512) + u64(16) * u64(lane), e, f, g, h, when)
    ptx.store_reals2(target + u64(1024) + u64(8) * u64(lane), g, e, when)
    ptx.store_shared_reals4(base + u32(16) * lane, h, g, f, e, u32(1))
    ptx.store_shared_reals4(base + u32(16) * (lane ^ u32(1)), e, e, f, f, when)
    ptx.warp_barrier()
    e, f, g, h = ptx.load_shared_reals4(base + u32(16) * (lane ^ u32(6)))
    ptx.store_reals4(target + u64(1280) + u64(16) * u64(lane), e, f, g, h, u32(1))
    e, f = ptx.load_shared_reals2(base + u32(8) * (lane ^ u32(21)))
    ptx.store_reals2(target + u64(1920) + u64(8) * u64(lane), f, e, u32(1))
"""

WAITS = """
    ptx.allow_launch()
    ptx.await_launch()
    ptx.store_word(target + u64(4) * u64(lane), ptx.load_word(source + u64(4) * u64(lane)), u32(1))
"""

# The block that counts last reads what the others have left.
LAST_BLOCK = """
    mine = ptx.load_word(source + u64(4) * u64(thread))
    place = target + u64(256) + u64(4) * u64(ptx.block_index() * u32(32) + thread)
    ptx.store_word(place, mine + ptx.block_index(), u32(1))
    ptx.fence_device()
    count = ptx.word_of_lane(ptx.fetch_add(target, u32(1), leader), u32(0))
    if count == u32(2):
        ptx.fence_device()
        total = u32(0)
        for i in range(4):
            total = u32(total + ptx.load_pair(target + u64(256) + u64(128 * i) + u64(4) * u64(thread)))
        ptx.store_word(target + u64(768) + u64(4) * u64(thread), total, u32(1))
"""

SHARED_WORDS = """
    other = u32(u32(63) - thread)
    mine = ptx.load_word(source + u64(4) * u64(thread))
    a, b, c, d = ptx.load_words4(source + u64(16) * u64(thread))
    when = ptx.load_word(source + u64(1024) + u64(4) * u64(thread))
    at = target + u64(4) * u64(thread)
    ptx.store_shared_word(base + u32(4) * thread, mine, u32(1))
    ptx.store_shared_words4(base + u32(256) + u32(16) * thread, a, b, c, d, u32(1))
    ptx.warp_barrier()
    ptx.store_word(at, ptx.load_shared_word(base + u32(4) * (thread ^ u32(9))), u32(1))
    ptx.block_barrier()
    ptx.store_word(at + u64(256), ptx.load_shared_word(base + u32(4) * other), u32(1))
    e, f, g, h = ptx.load_shared_words4(base + u32(256) + u32(16) * other)
    ptx.store_words4(target + u64(512) + u64(16) * u64(thread), e, f, g, h, u32(1))
    ptx.block_barrier()
    ptx.store_shared_word(base + u32(4) * other, u32(thread * u32(77)), when)
    ptx.store_shared_words4(base + u32(256) + u32(16) * other, d, c, b, a, when)
    ptx.block_barrier()
    ptx.store_word(at + u64(1536), ptx.load_shared_word(base + u32(4) * thread), u32(1))
    e, f, g, h = ptx.load_shared_words4(base + u32(256) + u32(16) * thread)
    ptx.store_words4(target + u64(1792) + u64(16) * u64(thread), e, f, g, h, u32(1))
"""

# One warp copies, two read: a ring of two stages over five rounds. Three lanes expect and copy parts of their own.
RING = """
    full = u32(base + u32(2048))
    empty = u32(base + u32(2064))
    if thread == u32(0):
        ptx.mbarrier_init(full, u32(3))
        ptx.mbarrier_init(full + u32(8), u32(3))
        ptx.mbarrier_init(empty, u32(33))
        ptx.mbarrier_init(empty + u32(8), u32(33))
        ptx.fence_mbarrier_init()
    ptx.block_barrier()
    stage = u32(0)
    phase = u32(0)
    if warp == u32(0):
        three = u32(1) if lane < u32(3) else u32(0)
        size = u32(u32(64) * (lane + u32(1)))
        offset = u32(u32(32) * lane * (lane + u32(1)))
        for i in range(5):
            ptx.mbarrier_wait(empty + u32(8) * stage, u32(phase ^ u32(1)))
            barrier = u32(full + u32(8) * stage)
            ptx.mbarrier_expect(barrier, size, three)
            part = source + u64(384 * i) + u64(offset)
            ptx.bulk_copy(base + u32(1024) * stage + offset, part, size, barrier, three)
            stage = u32(stage ^ u32(1))
            phase = u32(phase ^ u32(1)) if stage == u32(0) else phase
    else:
        for i in range(5):
            ptx.mbarrier_wait(full + u32(8) * stage, phase)
            word = u32(thread - u32(32)) if thread < u32(96) else u32(0)
            found = ptx.load_shared_word(base + u32(1024) * stage + u32(4) * word)
            more = ptx.load_shared_word(base + u32(1024) * stage + u32(256) + u32(4) * lane)
            ptx.mbarrier_arrive(empty + u32(8) * stage, u32(1) if warp == u32(1) else leader)
            ptx.store_word(target + u64(384 * i) + u64(4) * u64(word), found, u32(1))
            last = u32(1) if warp == u32(2) else u32(0)
            ptx.store_word(target + u64(384 * i + 256) + u64(4) * u64(lane), more, last)
            stage = u32(stage ^ u32(1))
            phase = u32(phase ^ u32(1)) if stage == u32(0) else phase
"""

# A warp's own copies: a ring of three stages, two groups in flight. Some lanes copy nothing in some rounds.
ASYNC = """
    when = ptx.load_word(source + u64(4096) + u64(4) * u64(lane))
    mine = u32(base + u32(16) * lane)
    ptx.store_shared_words4(mine, lane, lane, lane, lane, u32(1))
    ptx.store_shared_words4(mine + u32(512), lane, lane, lane, lane, u32(1))
    ptx.store_shared_words4(mine + u32(1024), lane, lane, lane, lane, u32(1))
    for i in range(2):
        ptx.async_copy(mine + u32(512 * i), source + u64(512 * i) + u64(16) * u64(lane), u32(1))
        ptx.async_commit()
    for i in range(8):
        wait_but_one()
        ptx.warp_barrier()
        a, b, c, d = ptx.load_shared_words4(base + u32(512 * (i % 3)) + u32(16) * (lane ^ u32(3)))
        ptx.store_words4(target + u64(512 * i) + u64(16) * u64(lane), a, b, c, d, u32(1))
        ptx.warp_barrier()
        more = (when >> u32(i)) & u32(1) if i < 6 else u32(0)
        ptx.async_copy(mine + u32(512 * ((i + 2) % 3)), source + u64(512 * (i + 2)) + u64(16) * u64(lane), more)
        ptx.async_commit()
    wait_all()
"""

MATRICES = """
    a, b, c, d = ptx.load_words4(source + u64(16) * u64(lane))
    ptx.store_shared_words4(base + u32(16) * lane, a, b, c, d, u32(1))
    ptx.warp_barrier()
    row = u32(base + u32(16) * ((lane * u32(5) + u32(3)) & u32(31)))
    a, b, c, d = ptx.load_matrices(row)
    ptx.store_words4(target + u64(16) * u64(lane), a, b, c, d, u32(1))
    a, b, c, d = ptx.load_matrices_transposed(row)
    ptx.store_words4(target + u64(512) + u64(16) * u64(lane), a, b, c, d, u32(1))
"""

REGISTERS = """
    a, b, c, d = ptx.load_words4(source + u64(16) * u64(thread))
    if thread < u32(128):
        fewer()
        ptx.store_words4(target + u64(16) * u64(thread), d, c, b, a, u32(1))
    else:
        more()
        ptx.store_words4(target + u64(16) * u64(thread), b, a, d, c, u32(1))
"""


def registers(name, released, claimed, threads):
    head = f"fewer = ptx.release_registers({released})\nmore = ptx.claim_registers({claimed})\n"
    proved = ("release_registers", "claim_registers")
    return Case(name, proved, REGISTERS, random_words(90, 4 * threads), 4 * threads, threads=threads, head=head)


SIZES = (70, 9, 4, 3, 2)
PITCH = (144, 144 * 10, 144 * 10 * 4, 144 * 10 * 4 * 3)  # bytes between rows and so on; more than the sizes need


DTYPES = {64: "float16", 4: "float32"}  # by the width of a box


def tensor(offset=0, sizes=SIZES, strides=PITCH, box=(64, 4, 2, 1, 1)):
    """The map of a tensor in the source."""
    return lambda address: [TensorMapArguments(DTYPES[box[0]], address + offset, sizes, strides, box)]


def tensor_case(name, corners, maps, at=0):
    """Boxes at these corners, and all bytes of shared memory that they fill, as they lie there."""
    box = maps(0)[0].box
    nbytes = (2 if box[0] == 64 else 4) * int(np.prod(box))
    body = f"""
    barrier = u32(base + u32({at + nbytes}))
    if thread == u32(0):
        ptx.mbarrier_init(barrier, u32(1))
        ptx.fence_mbarrier_init()
    ptx.block_barrier()
    ptx.fence_tensor_map(maps)
    for i in range({len(corners)}):
        c0, c1, c2, c3 = ptx.load_words4(source + u64(32 * i))
        c4 = ptx.load_word(source + u64(32 * i + 16))
        ptx.mbarrier_expect(barrier, u32({nbytes}), leader)
        ptx.tensor_copy(base + u32({at}), maps, barrier, c0, c1, c2, c3, c4, leader)
        ptx.mbarrier_wait(barrier, u32(i & 1))
        for j in range({-(-nbytes // 128)}):
            word = u32(lane + u32(32 * j))
            inside = u32(1) if word < u32({nbytes // 4}) else u32(0)
            found = ptx.load_shared_word(base + u32({at}) + u32(4) * (word if inside != u32(0) else u32(0)))
            ptx.store_word(target + u64({nbytes} * i) + u64(4) * u64(word), found, inside)
        ptx.warp_barrier()
    """
    rows = np.zeros((len(corners), 8), np.int32)
    rows[:, :5] = corners
    numbers = np.arange(1, 144 * 10 * 4 * 3 * 2 // 2 + 1, dtype=np.uint16)  # a number says where it stood
    source = np.concatenate([rows.view(np.uint16).reshape(-1), numbers])
    proved = ("tensor_copy", "fence_tensor_map", "mbarrier_expect", "mbarrier_wait")
    offset = rows.nbytes

    def shifted(address):
        return maps(address + offset)

    return Case(
        name, proved, body, source.view(np.uint32), len(corners) * nbytes // 4, shared=at + nbytes + 16, maps=shifted
    )


CORNERS = [(0, 0, 0, 0, 0), (8, 3, 1, 2, 1), (64, 7, 3, 0, 0), (0, -2, -1, 0, 0), (-8, 0, 0, 1, 1), (0, 0, 0, -1, 0),
           (0, 0, 0, 0, 2), (-64, 0, 0, 0, 0), (0, 100, 0, 0, 0), (16, -3, 3, 2, 1)]  # fmt: skip
LEVELS = [(0, 0, 0, 0, 0), (0, -2, 1, 3, 1), (0, 4, 2, 1, 0), (0, 6, 0, 0, 0), (0, 0, 0, 0, 2)]

CASES = (
    Case("loads", ("load_word", "load_pair", "load_state", "load_words4"), LOADS, random_words(70, 128), 256),
    Case(
        "stores", ("store_word", "store_words4", "store_real"), STORES,
        np.concatenate([random_words(71, 128), random_words(72, 32) % np.uint32(3)]), 256,
    ),
    Case(
        "halves", ("store_half",), HALVES,
        np.concatenate([random_words(73, 128), random_words(74, 32) % np.uint32(3)]), 64,
    ),
    Case(
        "reals",
        (
            "load_words4_when", "load_real_when", "load_reals4", "store_reals4", "store_reals2", "store_shared_reals4",
            "load_shared_reals4", "load_shared_reals2",
        ),
        REALS, np.concatenate([random_words(79, 128), random_words(72, 32) % np.uint32(3)]), 544, shared=512,
    ),
    Case("the last block", ("fence_device",), LAST_BLOCK, random_words(69, 32), 224, grid=4),
    Case("a launch that waits for none", ("await_launch", "allow_launch"), WAITS, random_words(80, 32), 32),
    Case("fetch_add", ("fetch_add",), FETCH_ADD, random_words(73, 64), 1024, threads=64, grid=4),
    Case(
        "shared words",
        (
            "shared_address", "load_shared_word", "load_shared_words4", "store_shared_word", "store_shared_words4",
            "warp_barrier", "block_barrier",
        ),
        SHARED_WORDS, np.concatenate([random_words(74, 256), random_words(75, 64) % np.uint32(3)]), 704,
        threads=64, shared=1280,
    ),
    Case(
        "ring of copies",
        ("mbarrier_init", "mbarrier_arrive", "mbarrier_expect", "mbarrier_wait", "fence_mbarrier_init", "bulk_copy"),
        RING, random_words(76, 480), 480, threads=96, shared=2080,
    ),
    tensor_case("tensor copies", CORNERS, tensor()),
    tensor_case("tensor copies within a swizzled kilobyte", CORNERS[:2], tensor(), at=384),
    tensor_case("tensor copies through strides", CORNERS[:5], tensor(288, (33, 3, 4, 6, 1), (288, 1440, 16, 16))),
    tensor_case("tensor copies of float32", LEVELS, tensor(16, (4, 5, 3, 4, 2), (16, 96, 320, 1280), (4, 8, 2, 1, 1))),
    Case(
        "a warp's own copies", ("async_copy", "async_commit", "async_wait"), ASYNC, random_words(77, 1056), 1024,
        shared=1536, head="wait_but_one = ptx.async_wait(1)\nwait_all = ptx.async_wait(0)\n",
    ),
    Case(
        "matrices from shared memory", ("load_matrices", "load_matrices_transposed"), MATRICES, random_words(78, 128),
        256, shared=512,
    ),
    registers("registers of two warpgroups", 56, 240, 256),
    registers("registers of three warpgroups", 40, 232, 384),
)  # fmt: skip
