"""Feature maps as text, which PyTorch's operators and graphs can hold; another process reads it, too."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import numpy as np

from flurka_numba.expressions import evaluate, parse
from flurka_numba.feature_maps import BuiltInMap, FeatureMap, resolve


def map_name(feature_map: Any) -> Any:
    """Text for a feature map; a word, and the None of low-rank attention, are themselves. Dynamo reads it.

    Raises ArgumentTypeError for what is no feature map.
    """
    return feature_map if feature_map is None or isinstance(feature_map, str) else _formula(feature_map)


def _formula(feature_map: Any) -> str:
    """All that kernels are made from. To Dynamo a constant of that very object."""
    phi, _ = resolve(feature_map, None)
    assert isinstance(phi, FeatureMap)  # noqa: S101 - of what is no word resolve() returns a formula
    own = isinstance(phi, BuiltInMap)
    return json.dumps([own, phi.name, phi.source, phi.derivative, phi.eps_inside])


# As torch._dynamo.assume_constant_result marks it, which would import Dynamo.
_formula._dynamo_marked_constant = True  # type: ignore[attr-defined]  # noqa: SLF001


@lru_cache(maxsize=256)
def named_map(name: Any) -> Any:
    """The feature map of a name; the same object for the same name."""
    if name is None or not name.startswith("["):
        return name
    own, short, source, derivative, eps_inside = json.loads(name)
    tree = parse("source", source)

    def function(x: Any) -> Any:
        return np.broadcast_to(evaluate(tree, {"x": x}), np.shape(x))

    return (BuiltInMap if own else FeatureMap)(short, function, source, derivative, eps_inside=eps_inside)
