"""Explicit axes of a mesh, as jax.make_mesh makes them: JAX's types say how arrays are split along them.

An operation's own types say nothing of it: JAX would gather its results, and refuse its gradients. So it runs where
these axes are automatic, JAX's partitioner is asked (executors.jax.sharding), and we say how its results are split.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import NamedSharding


def run_partitioned(
    run: Callable[..., Any], arrays: Sequence[Any], shardings: Callable[[Any, Any, Any], tuple[NamedSharding, ...]]
) -> Any:
    """run(*arrays), a tuple. shardings: (mesh, q's partition spec, k's) -> those of its results, where arrays are
    split along explicit axes; the first two arrays are q and k.
    """
    kinds = [jax.typeof(one).sharding for one in arrays]
    mesh = next((one.mesh for one in kinds if one.mesh.explicit_axes), None)
    if mesh is None:
        return run(*arrays)
    wanted = shardings(mesh, kinds[0].spec, kinds[1].spec)
    return jax.sharding.auto_axes(run, axes=mesh.explicit_axes, out_sharding=wanted)(*arrays)
