"""What kernels of gradients have in common on every GPU: which gradients one makes, how it stores them, which slopes
(dS) it has.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.plans.backward import KEYS, QUERIES

Kernels = tuple[tuple[str, ...], ...]
"""Which gradients each kernel makes."""

LEVEL_BYTES = 16  # of a query: its lse in base 2 and its delta; what a copy of Hopper's takes at least
WHOLE: dict[str, Kernels] = {QUERIES: (("dq",),), KEYS: (("dk", "dv"),)}  # by whose gradients they make
APART: Kernels = (("dk",), ("dv",))  # of keys, where the registers do not hold the sums of both
# How a launch stores results: in the arrays' dtype; as sums; added to sums; or added, and in the arrays' dtype.
ROUNDED, STAGED, ADDED, FINISHED = "rounded", "staged", "added", "finished"
NOWHERE, WRITTEN, READ = "", "written", "read"  # what a kernel does with slopes that are kept


def result_dims(boxes: Traits, names: Sequence[str]) -> dict[str, int]:
    """Elements a token of the gradients of these names, in the order of their products."""
    dims = {"dv": boxes.value_dim, "dk": boxes.head_dim, "dq": boxes.head_dim}
    return {name: dim for name, dim in dims.items() if name in names}


def names_written(names: Iterable[str], stored: str) -> tuple[str, ...]:
    """Of the arrays that a kernel is given for gradients of these names, in their order, and for sums of them."""
    every = tuple(names)
    return (*every, *(f"{name}_sums" for name in every)) if stored == FINISHED else every


def first_with_tiles(
    of: str, fitting: Callable[[Kernels], Sequence[Traits]]
) -> tuple[tuple[Traits, ...], Kernels] | None:
    """The tiles that fit all kernels, and the kernels: as few as have any; None where even those of one gradient each
    have none. of: QUERIES or KEYS.
    """
    for kernels in (WHOLE[of], *(APART,) * (of == KEYS)):
        if found := tuple(fitting(kernels)):
            return found, kernels
    return None


@dataclass(frozen=True, slots=True)
class GradientKernel:
    """What makes weights and slopes again and multiplies them. boxes: tiles, of whatever its rows and columns are; of:
    QUERIES or KEYS, its rows; wanted: of "dq", or of "dk" and "dv".
    """

    boxes: Traits
    of: str
    wanted: tuple[str, ...]

    @property
    def slopes(self) -> bool:
        """Whether gradients of the scores are made."""
        return self.wanted != ("dv",)

    @property
    def of_slopes(self) -> str:
        """The gradient that slopes are multiplied into; "" for none."""
        name = "dq" if self.of == QUERIES else "dk"
        return name if name in self.wanted else ""

    @property
    def columns_are_queries(self) -> bool:
        """Whether lse and delta belong to columns."""
        return self.of == KEYS

    @property
    def dims(self) -> dict[str, int]:
        """Elements a token of the gradients that are made, by name, in the order of their products."""
        return result_dims(self.boxes, self.wanted)
