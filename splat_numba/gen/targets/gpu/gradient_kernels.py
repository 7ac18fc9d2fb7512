"""What kernels of gradients have in common on every GPU: which gradients one makes, how it stores them, which slopes
(dS) it has.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from splat_numba.gen.backward import KEYS, QUERIES
from splat_numba.gen.boxes import Traits

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
