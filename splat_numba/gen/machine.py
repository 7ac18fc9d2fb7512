"""What a plan needs to know of the machine it is made for; found by runtime.device, given to gen as a value."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU. vector_bytes: of one register; vector_registers: how many there are; cores: threads a launch may use."""

    vector_bytes: int = 32
    vector_registers: int = 16
    cores: int = 1

    def lanes(self, itemsize: int) -> int:
        """Numbers of ``itemsize`` bytes in one vector register."""
        return self.vector_bytes // itemsize

    def describe(self) -> str:
        """In words."""
        return f"{self.cores} cores, {self.vector_bytes}-byte vectors"

    @property
    def register_rows(self) -> int:
        """Rows of the register tile: with two vectors a row it must leave room for operands and hide the FMA's latency.

        4 x 2 of 16 registers: 97 GFLOP/s on one Zen 3 core, where 6 x 2 gave 88 and 3 x 4 (spilled) 40.
        """
        return 4 if self.vector_registers <= 16 else 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, a Hopper by default. shared_bytes: a block may use; registers: 32-bit, of one multiprocessor; capability:
    compute capability, major and minor.
    """

    multiprocessors: int = 132
    shared_bytes: int = 232448
    registers: int = 65536
    l2_bytes: int = 50 * 2**20
    capability: tuple[int, int] = (9, 0)

    def describe(self) -> str:
        """In words."""
        return f"{self.multiprocessors} multiprocessors, {self.shared_bytes >> 10} KiB of shared memory a block"


# Bytes of shared memory that a block may use, by compute capability (CUDA programming guide, technical specifications).
SHARED_BYTES = {
    (7, 5): 64 << 10, (8, 0): 163 << 10, (8, 6): 99 << 10, (8, 7): 163 << 10, (8, 9): 99 << 10, (9, 0): 227 << 10,
    (10, 0): 227 << 10, (10, 3): 227 << 10, (11, 0): 227 << 10, (12, 0): 99 << 10, (12, 1): 99 << 10,
}  # fmt: skip


def gpu_of(capability: tuple[int, int], multiprocessors: int = 132) -> Gpu:
    """A GPU of a compute capability, one of SHARED_BYTES."""
    return Gpu(multiprocessors, SHARED_BYTES[capability], capability=capability)
