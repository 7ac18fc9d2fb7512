"""Manual axes of a mesh (shard_map): on which of them arrays differ between devices, as JAX's types say.

An operation's results differ wherever one of its inputs does. JAX finds that out for its own; of a foreign call the
result types must say so, and gradients are right only where all inputs were made to differ alike before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec


def made_alike(arrays: Sequence[Any]) -> list[Any]:
    """The arrays, of which all differ along the axes that one of them does."""
    axes = _axes(arrays)
    if not axes:
        return list(arrays)
    missing = [tuple(sorted(axes - _axes([one]))) for one in arrays]
    return [_cast(one, names) if names else one for one, names in zip(arrays, missing, strict=True)]


def differ(arrays: Sequence[Any]) -> bool:
    """Whether one of the arrays differs along a manual axis."""
    return bool(_axes(arrays))


def result_type(shape: tuple[int, ...], dtype: Any, arrays: Sequence[Any]) -> jax.ShapeDtypeStruct:
    """The type of an array that is made of these."""
    axes = _axes(arrays)
    if not axes:
        return jax.ShapeDtypeStruct(shape, dtype)
    if not hasattr(jax.sharding, "ManualAxisType"):  # JAX up to 0.10
        return jax.ShapeDtypeStruct(shape, dtype, vma=axes)
    kind = jax.sharding.ManualAxisType(varying=axes)
    sharding = NamedSharding(jax.sharding.get_abstract_mesh(), PartitionSpec())
    return jax.ShapeDtypeStruct(shape, dtype, manual_axis_type=kind, sharding=sharding)


def type_like(array: Any, shape: tuple[int, ...], dtype: Any) -> Any:
    """The type of an array that differs between devices as this one does, with no axis split."""
    sharding = NamedSharding(jax.sharding.get_abstract_mesh(), PartitionSpec())
    return jax.typeof(array).update(shape=shape, dtype=np.dtype(dtype), weak_type=False, sharding=sharding)


def _axes(arrays: Sequence[Any]) -> frozenset[str]:
    found: frozenset[str] = frozenset()
    for one in arrays:
        kind = jax.typeof(one)
        manual = getattr(kind, "manual_axis_type", None)
        found |= getattr(kind, "vma", frozenset()) if manual is None else manual.varying
    return found


def _cast(array: Any, axes: tuple[str, ...]) -> Any:
    return jax.lax.pcast(array, axes, to="varying") if hasattr(jax.lax, "pcast") else jax.lax.pvary(array, axes)
