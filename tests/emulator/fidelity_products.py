"""Cases of matrix products: of whole numbers, which are exact in any order, of real ones, and of special ones."""

import numpy as np
from numpy.testing import assert_array_equal

from splat_numba.gen.targets.sm90.shape import keys_descriptor, values_descriptor
from tests.emulator.fidelity import Case, emulate, random_words

TOKENS = 32  # rows of a transposed tile: two steps of 16
ORDER = ("wgmma_fence", "wgmma_commit", "wgmma_wait_all", "fence_shared")
# Hardware cuts off what the emulator rounds. An H200 was seen to differ by at most 1.5 * 2**-23 of the sum of absolute
# values.
BOUND = 4 * 2.0**-23


def to_halves(reals, dtype):
    """Numbers that the type has, as uint16."""
    if dtype == "float16":
        return reals.astype(np.float16).view(np.uint16)
    return (reals.astype(np.float32).view(np.uint32) >> np.uint32(16)).astype(np.uint16)


def whole(seed, count):
    return (random_words(seed, count) % np.uint32(5)).astype(np.float32) - 2


def normal(seed, count):
    """About normal, by the sum of four uniform numbers."""
    return (random_words(seed, 4 * count).reshape(4, count) / 2.0**32 - 0.5).sum(0).astype(np.float32) * 2


def special(dtype):
    """Mostly small whole numbers; a few infinities, NaN, zeros of both signs, and subnormal numbers."""
    rare = {"float16": (0x7C00, 0xFC00, 0x7E00, 0x7C01, 0x8000, 0x0001, 0x83FF, 0x0200)}
    rare["bfloat16"] = (0x7F80, 0xFF80, 0x7FC0, 0xFF81, 0x8000, 0x0001, 0x807F, 0x0040)

    def draw(seed, count):
        halves = to_halves(whole(seed, count), dtype)
        which = random_words(seed + 1, count) % np.uint32(400)
        return np.where(which < 8, np.array(rare[dtype], np.uint16)[which % 8], halves).astype(np.uint16)

    return draw


def tiny(seed, count):
    """bfloat16 near 2**-64, so that products are near the smallest normal float32."""
    words = random_words(seed, count)
    return ((words & np.uint32(0x807F)) | (np.uint32(60) + (words >> np.uint32(16)) % np.uint32(6)) << 7).astype(
        np.uint16
    )


class Product:
    """One kind of product with some column counts: where its operands are in the source, and its text."""

    def __init__(self, dtype, from_registers, transposed, columns, a_transposed=False, fresh=False):
        self.a_transposed, self.fresh = a_transposed, fresh
        self.dtype, self.from_registers, self.transposed, self.columns = dtype, from_registers, transposed, columns
        self.tile = 16 * 128 * -(-max(self.tile_bytes(one) for one in columns) // 2048)
        self.left = 0 if from_registers else 8192
        self.words_at = self.tile + self.left  # of A in registers, two steps
        self.sums_at = self.words_at + (4096 if from_registers else 0)

    @property
    def name(self):
        of = "registers" if self.from_registers else "shared memory"
        turned = f"{', transposed' if self.transposed else ''}{', A transposed' if self.a_transposed else ''}"
        return f"{self.dtype}{' fresh' if self.fresh else ''} product from {of}{turned}"

    def tile_bytes(self, columns):
        return -(-columns // 64) * TOKENS * 128 if self.transposed else columns * 128

    @property
    def head(self):
        kind = f'"{self.dtype}", from_registers={self.from_registers}, transposed={self.transposed}'
        kind += ", a_transposed=True" if self.a_transposed else ""
        lines = [f"product_{one} = ptx.matrix_product({one}, {kind})" for one in self.columns]
        if self.fresh:
            lines += [f"begin_{one} = ptx.matrix_product({one}, {kind}, fresh=True)" for one in self.columns]
        return "\n".join(lines) + "\n"

    def issue(self, columns, sums="sums", steps=(0, 1)):
        """Lines that issue the steps."""
        high = values_descriptor(TOKENS) if self.transposed else keys_descriptor()
        for step in steps:
            fresh = self.fresh and step == 0
            name = f"{'begin' if fresh else 'product'}_{columns}"
            b_at = f"u64({high}) | u64((base + u32({2048 * step if self.transposed else 96 * step})) >> u32(4))"
            if self.from_registers:
                words = ", ".join(f"{name}_{step}" for name in "abcd")
                yield f"{name}({sums}, {words}, {b_at})"
            else:
                layout = values_descriptor(TOKENS) if self.a_transposed else keys_descriptor()
                a_at = self.tile + (2048 if self.a_transposed else 64) * step
                a_at = f"u64({layout}) | u64((base + u32({a_at})) >> u32(4))"
                # The first step of float16 forgets what was there.
                add = "" if fresh else f", u32({int(step > 0 or self.dtype == 'bfloat16')})"
                yield f"{name}({sums}, {a_at}, {b_at}{add})"

    def prepare(self):
        """Lines that bring operands to shared memory and registers."""
        yield f"for i in range({(self.tile + self.left) // 2048}):"
        yield "    place = u32(u32(16) * (thread + u32(128 * i)))"
        yield "    a, b, c, d = ptx.load_words4(source + u64(place))"
        yield "    ptx.store_shared_words4(base + place, a, b, c, d, u32(1))"
        yield "ptx.fence_shared()"
        yield "ptx.block_barrier()"
        if self.from_registers:
            for step in (0, 1):
                words = ", ".join(f"{name}_{step}" for name in "abcd")
                yield f"{words} = ptx.load_words4(source + u64({self.words_at + 2048 * step}) + u64(16) * u64(thread))"

    def begin(self, columns, sums="sums"):
        """Lines that make accumulators."""
        yield f"{sums} = cuda.local.array({columns // 2}, dtype=np.float32)"
        yield f"for i in range({columns // 2}):"
        yield f"    {sums}[i] = ptx.load_state(source + u64({self.sums_at}) + u64(4) * u64(thread + u32(128 * i)))"

    def finish(self, columns, at, sums="sums"):
        """Lines that store them."""
        yield f"for i in range({columns // 2}):"
        yield f"    ptx.store_real(target + u64({at}) + u64(4) * u64(thread + u32(128 * i)), {sums}[i], u32(1))"

    def body(self):
        lines, at = list(self.prepare()), 0
        for columns in self.columns:
            sums = f"sums_{columns}"
            lines += self.begin(columns, sums)
            lines += ["ptx.wgmma_fence()", *self.issue(columns, sums), "ptx.wgmma_commit()", "ptx.wgmma_wait_all()"]
            lines += self.finish(columns, at, sums)
            at += columns * 256
        return "\n".join(lines)

    def source(self, halves, sums):
        """halves, sums: draw(seed, count) as uint16 and float32."""
        operands = halves(80, (self.sums_at) // 2).view(np.uint32)
        return np.concatenate([operands, sums(81, 64 * max(self.columns)).view(np.uint32)])

    def case(self, kind, halves, sums, agree=None, body="", words=0, proves=ORDER):
        more = {} if agree is None else {"agree": agree}
        return Case(
            f"{self.name}, {kind}", (*proves, "matrix_product"), body or self.body(), self.source(halves, sums),
            words or 64 * sum(self.columns), threads=128, shared=self.tile + self.left, head=self.head, **more,
        )  # fmt: skip


def near(product):
    """Bits where not finite; elsewhere within the bound times the sum of absolute values, by the emulator itself."""

    def agree(case, emulated, hardware):
        magnitude = case.source & np.uint32(0x7FFF7FFF)
        magnitude[product.sums_at // 4 :] = case.source[product.sums_at // 4 :] & np.uint32(0x7FFFFFFF)
        allowed = BOUND * emulate(case, magnitude).view(np.float32).astype(np.float64)
        e, h = emulated.view(np.float32), hardware.view(np.float32)
        plain = np.isfinite(e)
        assert_array_equal(emulated[~plain], hardware[~plain])
        worst = np.max(np.abs(e[plain].astype(np.float64) - h[plain]) / np.maximum(allowed[plain], 2.0**-149))
        assert worst <= 1, f"{case.name}: {worst:.3g} of the bound"

    return agree


def two_groups(product):
    """Two groups in flight: the first is read before the second is waited for."""
    columns = product.columns[0]
    lines = [*product.prepare(), *product.begin(columns, "first"), *product.begin(columns, "second")]
    lines += ["ptx.wgmma_fence()", *product.issue(columns, "first", (0,)), "ptx.wgmma_commit()"]
    lines += [*product.issue(columns, "second", (1,)), "ptx.wgmma_commit()", "ptx.wgmma_wait_but_one()"]
    lines += product.finish(columns, 0, "first")
    lines += ["ptx.wgmma_wait_all()", *product.finish(columns, 256 * columns, "second")]
    return "\n".join(lines)


class WarpProduct:
    """Some products of mma.sync; the source: six words a lane and product, then the sums."""

    count = 12
    sums_at = 4 * 6 * 32 * count

    def __init__(self, dtype):
        self.dtype = dtype

    def body(self):
        def load(kind, at, names, each):
            lines = (f"    {x} = ptx.load_{kind}({at} + u64({128 * i}))" for i, x in enumerate(names))
            return [f"    at = source + u64({each}) * u64(i) + u64(4) * u64(lane)", *lines]

        words, sums = [f"w{i}" for i in range(6)], [f"s{i}" for i in range(4)]
        lines = [f"for i in range({self.count}):", *load("word", "at", words, 768)]
        lines += load("state", f"at + u64({self.sums_at})", sums, 512)
        lines.append(f"    {', '.join(sums)} = ptx.mma_{self.dtype}({', '.join(words + sums)})")
        stores = (f"u64({128 * i}), {x}" for i, x in enumerate(sums))
        lines += [f"    ptx.store_real(target + u64(512) * u64(i) + u64(4) * u64(lane) + {x}, u32(1))" for x in stores]
        return "\n".join(lines)

    def case(self, kind, halves, sums, **more):
        operands = halves(82, self.sums_at // np.dtype(np.uint16).itemsize).view(np.uint32)[: self.sums_at // 4]
        source = np.concatenate([operands, sums(83, 128 * self.count).view(np.uint32)])
        name = f"{self.dtype} product of a warp, {kind}"
        return Case(name, (f"mma_{self.dtype}",), self.body(), source, 128 * self.count, **more)


def _of_a_warp():
    for dtype in ("bfloat16", "float16"):
        product = WarpProduct(dtype)
        yield product.case("whole numbers", lambda seed, n, t=dtype: to_halves(whole(seed, n), t), whole)
        real = lambda seed, n, t=dtype: to_halves(normal(seed, n), t)  # noqa: E731
        yield product.case("real numbers", real, normal, agree=near(product))
        yield product.case("special numbers", special(dtype), whole, agree=near(product))
    product = WarpProduct("tf32")
    yield product.case("whole numbers", whole, whole)
    yield product.case("real numbers", normal, normal, agree=near(product))  # of more bits than it takes
    yield product.case("special numbers", special_reals, whole, agree=near(product))


def special_reals(seed, count):
    """As special(), of float32."""
    rare = (0x7F800000, 0xFF800000, 0x7FC00000, 0xFF800001, 0x80000000, 0x00000001, 0x807FE000, 0x7F7FFFFF)
    which = random_words(seed + 1, count) % np.uint32(400)
    return np.where(which < 8, np.array(rare, np.uint32)[which % 8], whole(seed, count).view(np.uint32))


def _cases():
    columns = iter([(8, 72), (16, 256), (64, 136), (24, 200), (40, 128), (8, 240), (80, 96), (56, 192)])
    for dtype in ("bfloat16", "float16"):
        for from_registers in (False, True):
            for transposed in (False, True):
                product = Product(dtype, from_registers, transposed, next(columns))
                yield product.case("whole numbers", lambda seed, n, t=dtype: to_halves(whole(seed, n), t), whole)
                small = Product(dtype, from_registers, transposed, (40,))
                halves = lambda seed, n, t=dtype: to_halves(normal(seed, n), t)  # noqa: E731
                yield small.case("real numbers", halves, normal, near(small))
    for dtype in ("bfloat16", "float16"):
        for transposed in (False, True):
            product = Product(dtype, False, transposed, (8, 64), a_transposed=True)
            yield product.case("whole numbers", lambda seed, n, t=dtype: to_halves(whole(seed, n), t), whole)
    for dtype, from_registers, transposed in (("bfloat16", False, True), ("float16", True, False)):
        product = Product(dtype, from_registers, transposed, (8, 128), fresh=True)
        yield product.case("whole numbers", lambda seed, n, t=dtype: to_halves(whole(seed, n), t), whole)
    for dtype in ("bfloat16", "float16"):
        product = Product(dtype, True, True, (40,))
        yield product.case("special numbers", special(dtype), whole, near(product))
    product = Product("bfloat16", False, False, (40,))  # products and sums of subnormal size
    yield product.case("tiny numbers", tiny, lambda _seed, n: np.zeros(n, np.float32), near(product))
    product = Product("bfloat16", True, True, (16,))
    yield product.case(
        "two groups", lambda seed, n: to_halves(whole(seed, n), "bfloat16"), whole, body=two_groups(product),
        words=2048, proves=("wgmma_wait_but_one", *ORDER),
    )  # fmt: skip


CASES = (*_cases(), *_of_a_warp())
