"""What a plan needs to know of the machine it is made for; found by runtime.device, given to gen as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

THREAD_REGISTERS = 255  # that one thread can have
HOPPER_MULTIPROCESSORS = 132
HOPPER_SHARED_BYTES = 227 << 10  # that the blocks on a multiprocessor may use; one block may use all of it
HOPPER_REGISTERS = 1 << 16  # of 32 bits, of a multiprocessor

CPU = "CPU"
GPU = "GPU"
"""Kinds of processors: a target and the machines that it runs on are of one."""

FEW_REGISTERS = 16  # vector registers of x86 below AVX-512; others have 32


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU. vector_bytes: of one register; vector_registers: how many there are; cores: threads a launch may use."""

    vector_bytes: int = 32  # as AVX2 has
    vector_registers: int = FEW_REGISTERS
    cores: int = 1
    kind: ClassVar[str] = CPU

    @property
    def words(self) -> str:
        """What it is, in messages."""
        return "a CPU"

    def refusal(self, capabilities: frozenset[tuple[int, int]]) -> str | None:
        """Why a target of CPUs does not run here: none has a reason, since its texts are compiled for the host."""
        return None

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
        return 4 if self.vector_registers <= FEW_REGISTERS else 8


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, a Hopper by default. shared_bytes: a block may use; registers: 32-bit, of one multiprocessor; capability:
    compute capability, major and minor.
    """

    multiprocessors: int = HOPPER_MULTIPROCESSORS
    shared_bytes: int = HOPPER_SHARED_BYTES
    registers: int = HOPPER_REGISTERS
    capability: tuple[int, int] = (9, 0)
    kind: ClassVar[str] = GPU

    @property
    def arch(self) -> str:
        """The architecture that texts for it are compiled for."""
        return "sm_{}{}".format(*self.capability)

    @property
    def words(self) -> str:
        """What it is, in messages."""
        return "a GPU of compute capability {}.{}".format(*self.capability)

    def refusal(self, capabilities: frozenset[tuple[int, int]]) -> str | None:
        """Why a target of GPUs of these compute capabilities does not run here; None if it does."""
        if self.capability in capabilities:
            return None
        return "does not run on compute capability {}.{}".format(*self.capability)

    def describe(self) -> str:
        """In words."""
        return f"{self.multiprocessors} multiprocessors, {self.shared_bytes >> 10} KiB of shared memory a block"


FIRST_WITH_HALVES = (8, 0)  # compute capability whose instructions convert float32 to pairs of 16-bit numbers, and back
# Bytes of shared memory that a block may use, by compute capability (CUDA programming guide, technical specifications).
SHARED_BYTES = {
    (7, 5): 64 << 10, (8, 0): 163 << 10, (8, 6): 99 << 10, (8, 7): 163 << 10, (8, 9): 99 << 10,
    (9, 0): HOPPER_SHARED_BYTES,
    (10, 0): 227 << 10, (10, 3): 227 << 10, (11, 0): 227 << 10, (12, 0): 99 << 10, (12, 1): 99 << 10,
}  # fmt: skip


def gpu_of(capability: tuple[int, int], multiprocessors: int = HOPPER_MULTIPROCESSORS) -> Gpu:
    """A GPU of a compute capability, one of SHARED_BYTES."""
    return Gpu(multiprocessors, SHARED_BYTES[capability], capability=capability)


def gpu_of_plan(machine: Machine | Gpu) -> Gpu:
    """The GPU of a plan. Raises TypeError for a CPU's."""
    if isinstance(machine, Gpu):
        return machine
    raise TypeError(machine)
