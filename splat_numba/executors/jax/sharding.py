"""Which axes of attention's arrays may be split among devices without a word between them, as JAX's partitioner asks.

Batch entries are apart from each other, and so are key heads with the query heads that share them, unless query heads
have masks of their own. Tokens are not: an array that is split along them is gathered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec

from splat_numba.arguments.layouts import bhsd_axes
from splat_numba.gen.plans.problem import Problem

Names = tuple[tuple[str, ...], tuple[str, ...]]
"""Of the arrays that a call is given, and of those that it makes; gradients have the names of what they are of."""

FORWARD: Names = ("q", "k", "v"), ("out", "lse")
BACKWARD: Names = ("q", "k", "v", "out", "lse", "dout", "dlse"), ("q", "k", "v")
# Axes in the order batch, heads, seq, dim: g key heads, of r query heads each; s and t tokens.
_OF_QUERIES, _OF_KEYS = ("b", "(g r)", "s"), ("b", "g", "t")
_AXES = {
    "q": (*_OF_QUERIES, "d"), "k": (*_OF_KEYS, "d"), "v": (*_OF_KEYS, "e"), "out": (*_OF_QUERIES, "e"),
    "dout": (*_OF_QUERIES, "e"), "lse": _OF_QUERIES, "dlse": _OF_QUERIES, "kv_lengths": ("b",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Split:
    """How a call may be split. given, made: names of its arguments and results; alike: whether all heads have one
    mask.
    """

    given: tuple[str, ...]
    made: tuple[str, ...]
    layout: str
    problem: Problem
    alike: bool

    @property
    def rule(self) -> str:
        """The axes of all arrays in JAX's words."""
        rule = " -> ".join(
            ", ".join(" ".join(self._ordered(_AXES[n])) for n in names) for names in (self.given, self.made)
        )
        if self.group == 1:
            return rule.replace("(g r)", "g")
        return rule.replace("(g r)", "r") if self.problem.heads_kv == 1 else rule

    @property
    def sizes(self) -> dict[str, int]:
        """Of the rule's axes that make up one together."""
        return {"r": self.group} if "(" in self.rule else {}

    @property
    def group(self) -> int:
        """Query heads of a key head."""
        return self.problem.heads_q // self.problem.heads_kv

    @property
    def whole(self) -> tuple[str, ...]:
        """Axes that every device needs all of, in the order of the rule, or XLA refuses them."""
        apart = {"b", "g"} if self.alike else {"b"}
        return tuple(one for one in dict.fromkeys(re.findall(r"\w+", self.rule)) if one not in apart)

    def results(self, mesh: Any, q: Any, k: Any) -> tuple[NamedSharding, ...]:
        """Of what the call makes; see shardings."""
        return self.shardings(mesh, self.made, q, k)

    def shardings(self, mesh: Any, names: Sequence[str], q: Any, k: Any) -> tuple[NamedSharding, ...]:
        """Of arrays with these names, where q and k have these partition specs: split by batch entries as q is, and by
        heads as k is, if they can be, and by nothing else. JAX itself does not keep to the rule's whole axes.
        """
        batch = _even(mesh, _axes(q, self.layout)[0], self.problem.batch)
        heads = _even(mesh, _axes(k, self.layout)[1], self.problem.heads_kv) if self.alike else ()
        heads = () if {*batch} & {*heads} else heads  # an axis of the mesh splits one of an array's
        places = {"b": batch or None, "g": heads or None, "(g r)": heads or None}
        return tuple(
            NamedSharding(mesh, PartitionSpec(*(places.get(axis) for axis in self._ordered(_AXES[name]))))
            for name in names
        )

    def _ordered(self, axes: tuple[str, ...]) -> tuple[str, ...]:
        return bhsd_axes(axes, self.layout, "") if len(axes) == 4 else axes


def partitioned(run: Callable[..., Any], split: Split) -> Any:
    """The function of global arrays that runs ``run`` on each device's part."""

    def partition(mesh: Any, of_arguments: Any, _of_results: Any) -> Any:
        q, k = (_spec(one.sharding) for one in of_arguments[:2])
        results, arguments = (split.shardings(mesh, names, q, k) for names in (split.made, split.given))
        return mesh, run, results, arguments

    found = custom_partitioning(run)
    found.def_partition(
        partition=partition, sharding_rule=split.rule, need_replication_factors=split.whole, **split.sizes
    )
    return found


def _spec(sharding: Any) -> Any:
    """An array's partition spec; of shardings that have none, one that splits nothing."""
    return sharding.spec if isinstance(sharding, NamedSharding) else ()


def _axes(spec: Any, layout: str) -> tuple[Any, ...]:
    return bhsd_axes((*spec, *(None,) * (4 - len(spec))), layout, None)


def _even(mesh: Any, names: Any, size: int) -> tuple[str, ...]:
    """The mesh's axes, if so many can be split evenly along them."""
    several = () if names is None else (names,) if isinstance(names, str) else tuple(names)
    return several if size % prod(mesh.shape[one] for one in several) == 0 else ()
