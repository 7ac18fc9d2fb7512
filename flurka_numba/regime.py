"""Operations and bytes of each method, counted: which is fastest for a shape, and in which order a layer should work.

Order (a) makes keys and values of every token (x w_k, x w_v) and compresses those. Order (b) compresses x and makes
keys and values of the rows that are left: E (x w) = (E x) w. Given q, k and v, FLuRKA never needs fewer operations than
both low-rank and kernel attention; in order (b) it does, for f' < rank < model_dim + f' with f' = (1 + f) features / 2,
where f is 1 for maps that multiply by omega, else 0.
"""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.problem import Problem


@dataclass(frozen=True, slots=True)
class Cost:
    """What one method does. order: "a" or "b" of a layer, "" where there is none.

    operations: additions and multiplications of all products. bytes: each step's operands and results, moved once.
    """

    method: str
    order: str
    operations: int
    bytes: int

    @property
    def name(self) -> str:
        """As explain() prints it."""
        return f"{self.method} ({self.order})" if self.order else self.method


@dataclass(frozen=True, slots=True)
class _Steps:
    """Operations and numbers moved, summed over the steps."""

    operations: int = 0
    numbers: int = 0

    def product(self, rows: int, inner: int, columns: int, times: int = 1) -> _Steps:
        """With ``times`` products (rows, inner) @ (inner, columns) more."""
        moved = rows * inner + inner * columns + rows * columns
        return _Steps(self.operations + 2 * times * rows * inner * columns, self.numbers + times * moved)

    def moving(self, numbers: int, operations: int = 0) -> _Steps:
        return _Steps(self.operations + operations, self.numbers + numbers)

    def cost(self, method: str, order: str, itemsize: int) -> Cost:
        return Cost(method, order, self.operations, self.numbers * itemsize)


def core_costs(problem: Problem) -> tuple[Cost, ...]:
    """dense, low_rank, kernel and flurka on given q, k, v of the problem's sizes; softmax and maps count as nothing."""
    return tuple(
        _core(_compressed(_Steps(), problem, method), problem, method).cost(method, "", problem.itemsize)
        for method in ("dense", "low_rank", "kernel", "flurka")
    )


def layer_costs(problem: Problem) -> tuple[Cost, ...]:
    """A self-attention layer with w_q, w_k, w_v and w_o, model_dim = heads * head_dim, by each method and order."""
    methods = [("dense", ""), ("kernel", "")]
    methods += [(method, order) for method in ("low_rank", "flurka") for order in orders(problem)]
    return tuple(_layer(problem, method, order).cost(method, order, problem.itemsize) for method, order in methods)


def orders(problem: Problem) -> tuple[str, ...]:
    """Those that a layer can use: x is compressed once for all heads, so a projection a head has order (a) alone."""
    return ("a",) if problem.per_head_proj else ("a", "b")


def layer_order(problem: Problem) -> str:
    """The order with fewer operations."""
    return min(orders(problem), key=lambda order: _layer(problem, "flurka", order).operations)


def fewest(costs: tuple[Cost, ...]) -> Cost:
    """The one with the fewest operations."""
    return min(costs, key=lambda cost: cost.operations)


def _layer(problem: Problem, method: str, order: str) -> _Steps:
    tokens, rows = problem.batch * problem.seq_kv, problem.batch * problem.rank
    width = problem.heads * problem.head_dim
    steps = _Steps().product(tokens, width, width, times=2)  # queries, and w_o
    if order == "b":
        compressions = 1 if problem.shared_proj else 2
        steps = steps.product(problem.rank, problem.seq_kv, problem.batch * width, times=compressions)
        steps = steps.product(rows, width, width, times=2)
    else:
        steps = _compressed(steps.product(tokens, width, width, times=2), problem, method)
    return _core(steps, problem, method)


def _compressed(steps: _Steps, problem: Problem, method: str) -> _Steps:
    """With E k and F v, for the methods that have them."""
    if method in ("dense", "kernel"):
        return steps
    # A shared projection is read once for all heads: one product with their columns side by side.
    together, times = (1, problem.heads) if problem.per_head_proj else (problem.heads, 1)
    for dim in (problem.head_dim, problem.value_dim):
        steps = steps.product(problem.rank, problem.seq_kv, problem.batch * together * dim, times)
    return steps


def _core(steps: _Steps, problem: Problem, method: str) -> _Steps:
    """With what makes out from q and the keys and values, or slots, of every head, in one fused pass."""
    n, d, e, m = problem.seq_q, problem.head_dim, problem.value_dim, problem.features
    slots = problem.seq_kv if method in ("dense", "kernel") else problem.rank
    heads = problem.batch * problem.heads
    moved = heads * (n + slots) * (d + e)
    if method in ("dense", "low_rank"):
        return steps.moving(moved, 2 * heads * n * slots * (d + e))
    mapping = 0 if isinstance(problem.feature_map, FeatureMap) else (n + slots) * d * m
    return steps.moving(moved, 2 * heads * (mapping + (n + slots) * m * e))


def explain_layer(problem: Problem) -> str:
    """Which order a layer uses and which method would be fastest, with the counts."""
    costs, order = layer_costs(problem), layer_order(problem)
    ours = next(cost for cost in costs if (cost.method, cost.order) == ("flurka", order))
    phi = problem.feature_map.name if isinstance(problem.feature_map, FeatureMap) else problem.feature_map
    width = problem.heads * problem.head_dim
    unit, size = _unit(ours.operations)
    lines = [
        f"FLuRKA layer: batch {problem.batch}, seq {problem.seq_kv}, model_dim {width} = {problem.heads} heads x "
        f"{problem.head_dim}, rank {problem.rank}, feature map {phi} ({problem.features} features), {problem.dtype}",
        f"order ({order}): {_reason(problem, costs, order)}",
        f"{'method':<14} {unit:>10} {'/ ours':>8} {'MB moved':>10} {'FLOP/byte':>10}",
    ]
    best = fewest(costs)
    for cost in sorted(costs, key=lambda cost: cost.operations):
        mark = {id(best): "  fewest operations"}.get(id(cost), "") + ("  <- this layer" if cost is ours else "")
        lines.append(
            f"{cost.name:<14} {cost.operations / size:>10.3f} {cost.operations / max(ours.operations, 1):>8.2f} "
            f"{cost.bytes / 1e6:>10.2f} {cost.operations / max(cost.bytes, 1):>10.1f}{mark}"
        )
    return "\n".join([*lines, _window(problem, width)])


def _reason(problem: Problem, costs: tuple[Cost, ...], order: str) -> str:
    if problem.per_head_proj:
        return "keys and values of every token, then compressed, since each head has a projection of its own."
    count = {cost.order: cost.operations for cost in costs if cost.method == "flurka"}
    unit, size = _unit(count[order])
    steps = {
        "a": "keys and values of every token, then compressed",
        "b": f"x compressed, then keys and values of its {problem.rank} rows",
    }
    other = "b" if order == "a" else "a"
    return f"{steps[order]}: {count[order] / size:.3f} {unit}, not {count[other] / size:.3f}."


def _unit(operations: int) -> tuple[str, float]:
    return ("GFLOP", 1e9) if operations >= 1e9 else ("MFLOP", 1e6)


def _window(problem: Problem, width: int) -> str:
    half = problem.features * (1 if isinstance(problem.feature_map, FeatureMap) else 2) / 2
    return (
        f"By operations of long sequences, order (b): below rank {half:g} low-rank is the fastest, from there to "
        f"{width + half:g} FLuRKA, beyond kernel attention."
    )
