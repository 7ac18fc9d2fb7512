"""What Dynamo is told: which call stands in its graphs as it is, and which outside. Only traces import this."""

from __future__ import annotations

from typing import Any

import torch

from splat_numba.bridges.torch.autograd import whole
from splat_numba.bridges.torch.functions import outside_graphs
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern

# Without this Dynamo traces into the Function, and torch.compile(torch.func.grad(f)) gives zeros in silence:
# pytorch#193279.
torch.compiler.allow_in_graph(whole)

HOLDS_OBJECTS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)


def fits_a_graph(mask: Any) -> bool:
    """Whether a graph may hold the mask: patterns, and with PyTorch 2.13 and later other objects that cannot change."""
    masks = mask if isinstance(mask, (list, tuple)) else (mask,)
    return all([_fits(one) for one in masks])  # noqa: C419 - Dynamo reads lists


def _fits(mask: Any) -> bool:
    return isinstance(mask, Pattern) or (HOLDS_OBJECTS and (isinstance(mask, ACSR) or hasattr(mask, "parts_for")))


def _outside(*arguments: Any) -> Any:
    """The call outside a graph."""
    from splat_numba.bridges.torch.door import attend

    return attend(*arguments)


# A graph would keep a dense mask's numbers as they were when it was made, and not look whether they are still the same.
outside = outside_graphs(
    _outside,
    "mask wanted as a Pattern or an ACSR in a graph (before PyTorch 2.13: a Pattern), and out left out. Give "
    "splat_numba.from_dense(mask), made once outside, or leave out fullgraph=True.",
)

__all__ = ["fits_a_graph", "outside", "whole"]
