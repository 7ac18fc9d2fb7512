"""What Dynamo is told: which call stands in its graphs as it is, and which outside. Only traces import this."""

from __future__ import annotations

from typing import Any

import torch

from splat_numba.bridges.torch.autograd import whole
from splat_numba.formats.patterns import Pattern

# Without this Dynamo traces into the Function, and torch.compile(torch.func.grad(f)) gives zeros in silence:
# pytorch#193279.
torch.compiler.allow_in_graph(whole)

_HOLDS_OBJECTS = tuple(int(part) for part in torch.__version__.split(".")[:2]) >= (2, 13)


def fits_a_graph(mask: Any) -> bool:
    """Whether this version of Dynamo takes the mask: before 2.13 it holds no objects but patterns."""
    if _HOLDS_OBJECTS:
        return True
    masks = mask if isinstance(mask, (list, tuple)) else (mask,)
    return all([isinstance(one, Pattern) for one in masks])  # noqa: C419 - Dynamo reads lists


def _outside(*arguments: Any) -> Any:
    """The call outside a graph."""
    from splat_numba.bridges.torch.door import attend

    return attend(*arguments)


outside = torch.compiler.disable(
    _outside,
    reason="mask wanted as a Pattern in graphs of PyTorch before 2.13, got a stored mask or a Kernel. Give a Pattern, "
    "or leave out fullgraph=True.",
)


__all__ = ["fits_a_graph", "outside", "whole"]
