"""How an instruction is compared with hardware: a small text, its input, and what both must agree on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from textwrap import dedent, indent

import numpy as np
from numpy.testing import assert_array_equal

from splat_numba.emulator.memory import GlobalMemory
from splat_numba.emulator.text import launch
from splat_numba.gen.language.entry import Entry
from splat_numba.runtime.source import KernelSource

PARAMETERS = (("source", "l"), ("target", "l"), ("maps", "l"))
HEAD = '''"""Instructions applied to numbers of ``source``; their results go to ``target``."""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

f32, u32, u64 = np.float32, np.uint32, np.uint64
'''
START = """
thread = ptx.thread_index()
lane = u32(thread & u32(31))
warp = u32(thread >> u32(5))
leader = u32(1) if lane == u32(0) else u32(0)
"""
SHARED = """
start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))
base = u32((start + u32(1023)) & u32(4294966272))
"""


def same_bits(_case, emulated, hardware):
    """Every bit, a NaN's too."""
    assert_array_equal(emulated, hardware)


@dataclass(frozen=True, eq=False)
class Case:
    """proves: the instructions that it is about. body: of the function, source: uint32; words: of the answer. head:
    what stands before the function. maps: tensor maps, given the address of the source. agree: raises AssertionError.
    """

    name: str
    proves: tuple[str, ...]
    body: str
    source: np.ndarray
    words: int
    threads: int = 32
    grid: int = 1
    shared: int = 0
    head: str = ""
    maps: Callable = lambda _address: []
    agree: Callable = same_bits

    @property
    def text(self):
        shared = SHARED if self.shared else ""
        body = indent(dedent(START) + dedent(shared) + dedent(self.body), "    ").strip("\n")
        return f"{HEAD}{dedent(self.head)}\n\ndef fidelity(source, target, maps):\n{body}\n"

    @property
    def kernel(self):
        return KernelSource.of("fidelity", self.text)

    @property
    def entry(self):
        return Entry("fidelity", PARAMETERS, self.threads, 1, self.shared + 1024 if self.shared else 0)

    @property
    def digest(self):
        """Changes with whatever the recorded answer depends on."""
        called = self.entry.parameters, self.entry.threads, self.entry.shared_bytes, self.grid
        described = f"{self.text}{called}{self.words}{self.maps(0)}".encode()
        return hashlib.sha256(described + self.source.tobytes()).hexdigest()[:16]


def emulate(case, source=None, late=False):
    """The case's answer as uint32. source: in place of its own."""
    memory = GlobalMemory()
    given = np.ascontiguousarray(case.source if source is None else source)
    source_at, target_at = memory.allocate(given.nbytes), memory.allocate(4 * case.words)
    memory.read(source_at, given.nbytes)[...] = given.view(np.uint8)
    maps = case.maps(source_at)
    numbers = np.repeat(np.arange(max(len(maps), 1), dtype=np.uint64), 16)  # in place of a map its number
    maps_at = memory.allocate(numbers.nbytes)
    memory.read(maps_at, numbers.nbytes)[...] = numbers.view(np.uint8)
    values = {"source": source_at, "target": target_at, "maps": maps_at}
    launch(case.text, case.name, case.entry, values, memory, maps, grid=case.grid, late=late)
    return memory.read(target_at, 4 * case.words).view(np.uint32).copy()


def random_words(seed, count):
    """Random uint32, the same for ever: NumPy's generators may change. (The finaliser of MurmurHash3.)"""
    x = np.arange(count, dtype=np.uint64) + np.uint64(seed << 32)
    for factor in (0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53):
        x = (x ^ (x >> np.uint64(33))) * np.uint64(factor)
    return ((x ^ (x >> np.uint64(33))) >> np.uint64(16)).astype(np.uint32)


def uniform_reals(seed, count, low, high):
    """Random float32, as uint32."""
    return (low + (high - low) * (random_words(seed, count) / 2.0**32)).astype(np.float32).view(np.uint32)
