"""What the text of a kernel that reads kept slopes needs to know of its traits, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.language.lane_layout import ATOM, WARP, sums_of
from splat_numba.gen.targets.sm80.backward.traits import GradientTraits
from splat_numba.gen.targets.sm80.shape import CHUNK, row_bytes, steps

OTHER_REGISTERS = 56  # of a thread beside its gradients
MOST_SUMS = 192  # that leave room for them


@dataclass(frozen=True, slots=True)
class ReadingMemory:
    """Byte offsets from a stage's start, behind its keys; and of a stage."""

    images: int
    status: int
    stage_bytes: int


def reading_layout(traits: GradientTraits) -> ReadingMemory:
    """A stage: keys, an image of each group, and which of these there are."""
    images = traits.boxes.tile_kv * row_bytes(traits.boxes.head_dim)
    status = images + IMAGE_BYTES * traits.boxes.groups
    return ReadingMemory(images, status, status + CHUNK)


def reading_bytes(traits: GradientTraits) -> int:
    """Dynamic shared memory of a block, with room to align its start."""
    return traits.boxes.stages * reading_layout(traits).stage_bytes + CHUNK


def total_registers(traits: GradientTraits) -> int:
    """Of an atom's gradients, for one thread."""
    return sums_of(ATOM * steps(traits.boxes.head_dim))


def atoms_of(traits: GradientTraits) -> int:
    """Two where a row block has as many groups and registers allow: keys that are read serve both."""
    return 2 if traits.boxes.groups == 2 and 2 * total_registers(traits) <= MOST_SUMS else 1


def fits_registers(traits: GradientTraits) -> bool:
    """Whether a thread has its gradients in registers."""
    return atoms_of(traits) * total_registers(traits) <= MOST_SUMS


def registers(traits: GradientTraits) -> int:
    """That a thread wants."""
    return atoms_of(traits) * total_registers(traits) + OTHER_REGISTERS


def threads_of(traits: GradientTraits) -> int:
    """Of a block."""
    return WARP * traits.boxes.tile_q // (ATOM * atoms_of(traits))
