"""What Dynamo is told: which call stands in its graphs as it is, and which outside. Only traces import this."""

from __future__ import annotations

from typing import Any

import torch

from flurka_numba.bridges.torch.autograd import whole
from splat_numba.bridges.torch.functions import outside_graphs
from splat_numba.bridges.torch.in_graphs import HOLDS_OBJECTS

torch.compiler.allow_in_graph(whole)  # see splat_numba.bridges.torch.in_graphs


def fits_a_graph(feature_map: Any) -> bool:
    """Whether a graph may hold the feature map: words, and with PyTorch 2.13 and later formulas, which are frozen."""
    return HOLDS_OBJECTS or feature_map is None or isinstance(feature_map, str)


def _outside(call: Any) -> Any:
    """The call outside a graph."""
    from flurka_numba.bridges.torch.door import attend

    return attend(call)


outside = outside_graphs(
    _outside,
    "out wanted left out in a graph, and before PyTorch 2.13 feature_map as a word. Leave it out, or leave out "
    "fullgraph=True.",
)

__all__ = ["fits_a_graph", "outside", "whole"]
