"""Masks as text, which PyTorch's operators and graphs can hold: a pattern as it is written, a stored mask by its hash.

What text alone does not say is kept here for as long as the process lives, since a graph that was made from it may.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from splat_numba.arguments.dense_masks import dense_mask
from splat_numba.arguments.masks import fingerprint
from splat_numba.errors import ArgumentError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.parse import parse
from splat_numba.formats.patterns import Pattern

LONGEST = 10_000  # characters of a pattern's own text; a longer one is known by its hash
_kept: dict[str, Any] = {}


def mask_name(mask: Any) -> str:
    """Text for a mask, or for a list of masks, one a head. Dynamo reads it, and looks at each number of a pattern.

    Raises ArgumentTypeError, FormatError for what is no mask.
    """
    if isinstance(mask, (list, tuple)):
        return ";" + ";".join([_name(one) for one in mask])
    return _name(mask)


def _name(mask: Any) -> str:
    if isinstance(mask, Pattern):
        text = repr(mask)
        return text if len(text) <= LONGEST else keep(mask)
    return keep(mask)


def settled(mask: Any) -> Any:
    """The mask, or masks, as what cannot change: a dense one stored. A Kernel is itself. Raises as mask_name() does."""
    if isinstance(mask, (Pattern, ACSR)) or hasattr(mask, "parts_for"):
        return mask
    if isinstance(mask, (list, tuple)):
        return tuple(settled(one) for one in mask)
    return ACSR.from_dense(dense_mask(mask, "mask"))


def keep(held: Any) -> str:
    """The name of a stored mask, or of a kernel, which is kept. To Dynamo a constant of that very object."""
    if isinstance(held, (Pattern, ACSR)):
        name = f"mask:{hashlib.sha256(fingerprint(held).encode()).hexdigest()}"
    elif hasattr(held, "parts_for"):  # a Kernel, which this part does not know
        name = f"kernel:{hashlib.sha256(_recipe(held).encode()).hexdigest()}"
    else:
        return keep(settled(held))
    _kept.setdefault(name, held)
    return name


# As torch._dynamo.assume_constant_result marks it, which would import Dynamo.
keep._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001


def _recipe(kernel: Any) -> str:
    masks = [(fingerprint(part.mask), part.heads) for part in kernel.parts]
    edited = None if kernel.edited is None else kernel.edited.text
    return repr((masks, kernel.problem, kernel.scale, kernel.layout, kernel.executor, edited))


@lru_cache(maxsize=1024)
def named(name: str) -> Any:
    """The mask, list of masks or kernel of a name; the same object for the same name.

    Raises ArgumentError for a hash that nothing of this process has.
    """
    if name.startswith(";"):
        return tuple(named(one) for one in name[1:].split(";"))
    if not name.startswith(("mask:", "kernel:")):
        return parse(name)
    if name not in _kept:
        raise ArgumentError(
            f"mask wanted as a pattern, or as a stored mask or kernel of this process, got the hash {name!r} of "
            "another. Call splat_numba.attention with the mask itself, or export the graph with a Pattern."
        )
    return _kept[name]
