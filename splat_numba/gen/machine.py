"""What a plan needs to know of the machine it is made for; found by runtime.device, given to gen as a value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

CPU = "CPU"
GPU = "GPU"
"""Kinds of processors: a target and the machines that it runs on are of one."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A CPU. vector_bytes: of one register; vector_registers: how many there are; cores: threads a launch may use."""

    vector_bytes: int = 32
    vector_registers: int = 16
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
    kind: ClassVar[str] = GPU

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
