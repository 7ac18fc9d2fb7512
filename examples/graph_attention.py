"""A graph-attention network that finds communities of 20,000 nodes, trained with NumPy and the packed operators.

    python examples/graph_attention.py  # losses and accuracies, in under a minute
    python examples/graph_attention.py --nodes 2000 --steps 30

A node has features that say little of its community, and edges, of which little more than half lead to its own. A layer
is that of Velickovic et al., Graph Attention Networks (2018): the score of an edge is a sum of what its two ends say,
which is an sddmm of two-number vectors; the weights of a node's neighbours are a softmax of the scores; its result is
an spmm. Each operator's gradient comes from its vjp, so memory follows the edges. Labels of a tenth of the nodes are
known; the accuracy is that of the others. Beside it the same network sees no edges but each node's own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

import splat_numba as splat

Array = NDArray[np.float32]
Gradients = dict[str, Array]
HEADS, WIDTH, FEATURES, COMMUNITIES = 4, 16, 32, 8
LINKS, STRANGERS = 4, 4  # edges that a node draws within its community, and to anybody
SLOPE = np.float32(0.2)  # of the scores' leaky ReLU
RATE, BETA_1, BETA_2 = 0.01, 0.9, 0.999


def make_graph(nodes: int, seed: int = 0) -> tuple[splat.ACSR, Array, NDArray[np.int64]]:
    """Planted communities: a graph in which every node keeps itself and its neighbours, features, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, COMMUNITIES, nodes)
    order = np.argsort(labels, kind="stable")
    first, size = np.searchsorted(labels[order], labels), np.bincount(labels, minlength=COMMUNITIES)[labels]
    friends = order[first[:, None] + rng.integers(0, size[:, None], (nodes, LINKS))]
    ends = np.concatenate([friends, rng.integers(0, nodes, (nodes, STRANGERS))], axis=1).ravel()
    begins, own = np.repeat(np.arange(nodes), LINKS + STRANGERS), np.arange(nodes)
    rows, columns = np.concatenate([begins, ends, own]), np.concatenate([ends, begins, own])
    edges = np.unique(rows * nodes + columns)
    graph = splat.from_csr(np.searchsorted(edges, np.arange(nodes + 1) * nodes), edges % nodes, (nodes, nodes))
    centres = rng.standard_normal((COMMUNITIES, FEATURES))
    features = 0.25 * centres[labels] + rng.standard_normal((nodes, FEATURES))
    return graph, features.astype(np.float32), labels


def make_parameters() -> dict[str, Array]:
    """Two layers, each with its matrix and what it listens to at both ends of an edge; and a matrix that reads."""
    rng = np.random.default_rng(0)
    inner = HEADS * WIDTH
    sizes = {
        "matrix 1": (FEATURES, inner), "from 1": (HEADS, WIDTH), "to 1": (HEADS, WIDTH),
        "matrix 2": (inner, inner), "from 2": (HEADS, WIDTH), "to 2": (HEADS, WIDTH), "read": (inner, COMMUNITIES),
    }  # fmt: skip
    return {name: (size[0] ** -0.5 * rng.standard_normal(size)).astype(np.float32) for name, size in sizes.items()}


def attend(
    x: Array, graph: splat.ACSR, p: Mapping[str, Array], name: str
) -> tuple[Array, Callable[[Array], tuple[Array, Gradients]]]:
    """A layer: x (nodes, inputs) to (nodes, HEADS * WIDTH); and the way back, to the gradients of x and parameters."""
    matrix, listen_from, listen_to = (p[f"{part} {name}"] for part in ("matrix", "from", "to"))
    h = (x @ matrix).reshape(-1, HEADS, WIDTH).swapaxes(0, 1)  # (heads, nodes, width), a view
    one = np.ones((HEADS, len(x)), np.float32)
    left, right = (np.einsum("hnw,hw->hn", h, listen) for listen in (listen_from, listen_to))
    q, k = np.stack([left, one], axis=2), np.stack([one, right], axis=2)  # q_i.k_j = left_i + right_j
    scores, back_to_ends = splat.sddmm_vjp(q, k, graph)
    weights, back_to_scores = splat.softmax_vjp(np.where(scores > 0, scores, SLOPE * scores), graph)
    out, back_to_weights = splat.spmm_vjp(weights, h, graph)

    def backward(dout: Array) -> tuple[Array, Gradients]:
        dweights, dh = back_to_weights(dout.reshape(-1, HEADS, WIDTH).swapaxes(0, 1))
        dscores = back_to_scores(dweights)
        dq, dk = back_to_ends(np.where(scores > 0, dscores, SLOPE * dscores))
        dleft, dright = dq[..., 0], dk[..., 1]
        dh = dh + dleft[..., None] * listen_from[:, None] + dright[..., None] * listen_to[:, None]
        flat = dh.swapaxes(0, 1).reshape(len(x), -1)
        return flat @ matrix.T, {
            f"matrix {name}": x.T @ flat, f"from {name}": np.einsum("hn,hnw->hw", dleft, h),
            f"to {name}": np.einsum("hn,hnw->hw", dright, h),
        }  # fmt: skip

    return out.swapaxes(0, 1).reshape(len(x), -1), backward


def loss_and_gradients(
    p: Mapping[str, Array], graph: splat.ACSR, features: Array, labels: NDArray[np.int64], known: NDArray[np.bool_]
) -> tuple[float, float, Gradients]:
    """Mean cross entropy of the known nodes in nats, the accuracy of the others, and gradients by parameter."""
    first, back_1 = attend(features, graph, p, "1")
    hidden = np.where(first > 0, first, np.expm1(np.minimum(first, 0)))
    second, back_2 = attend(hidden, graph, p, "2")
    last = second + hidden
    logits = last @ p["read"]
    logits -= logits.max(axis=1, keepdims=True)
    shares = np.exp(logits)
    shares /= shares.sum(axis=1, keepdims=True)
    nodes = np.arange(len(labels))
    loss = float(-np.log(shares[nodes, labels][known]).mean())
    accuracy = float((logits.argmax(axis=1) == labels)[~known].mean())

    dlogits = shares
    dlogits[nodes, labels] -= 1
    dlogits *= (known / known.sum()).astype(np.float32)[:, None]
    dlast = dlogits @ p["read"].T
    dhidden, gradients = back_2(dlast)
    dfirst = (dhidden + dlast) * np.where(first > 0, 1, np.exp(np.minimum(first, 0)))
    _, others = back_1(dfirst)
    return loss, accuracy, {"read": last.T @ dlogits, **gradients, **others}


def train(nodes: int, steps: int, *, edges: bool = True) -> tuple[list[float], list[float], float]:
    """Losses and accuracies step by step, and seconds, of which compiling is not one. Without edges nodes keep only
    themselves.
    """
    graph, features, labels = make_graph(nodes)
    if not edges:
        graph = splat.ACSR.from_pattern(splat.window(0), nodes, nodes)
    known = np.random.default_rng(1).random(nodes) < 0.1
    parameters = make_parameters()
    means = {name: (np.zeros_like(one), np.zeros_like(one)) for name, one in parameters.items()}
    losses: list[float] = []
    accuracies: list[float] = []
    begin = 0.0
    for step in range(1, steps + 1):
        loss, accuracy, gradients = loss_and_gradients(parameters, graph, features, labels, known)
        losses.append(loss)
        accuracies.append(accuracy)
        for name, gradient in gradients.items():
            mean, square = means[name]
            mean += (1 - BETA_1) * (gradient - mean)
            square += (1 - BETA_2) * (gradient**2 - square)
            change = mean / (1 - BETA_1**step) / (np.sqrt(square / (1 - BETA_2**step)) + 1e-8)
            parameters[name] -= np.float32(RATE) * change
        if step == 1:
            begin = time.perf_counter()
    return losses, accuracies, time.perf_counter() - begin


def main() -> None:
    """Train with the graph and without it, and print losses and accuracies."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    parser.add_argument("--steps", type=int, default=40)
    args = parser.parse_args()
    graph = make_graph(args.nodes)[0]
    print(f"{args.nodes} nodes, {graph.nnz} kept pairs, {COMMUNITIES} communities")
    found = {"with edges": train(args.nodes, args.steps), "without": train(args.nodes, args.steps, edges=False)}
    print("step".rjust(6), *(f"{name}: loss, accuracy".rjust(30) for name in found))
    for step in sorted({0, *range(args.steps // 6 - 1, args.steps, max(args.steps // 6, 1)), args.steps - 1} - {-1}):
        cells = (f"{losses[step]:22.3f} {accuracies[step]:7.1%}" for losses, accuracies, _ in found.values())
        print(f"{step + 1:6}", *cells)
    print("seconds".rjust(6), *(f"{seconds:29.1f}" for *_, seconds in found.values()))


if __name__ == "__main__":
    main()
