"""A character model of one attention layer, trained with NumPy and attention_vjp alone, beside dense attention.

    python examples/train_character_model.py  # a table of both losses, in under a minute
    python examples/train_character_model.py --steps 20 --seq 256

The text is this package's own source. A token attends to the 64 before it, or, dense, to all before it: what follows a
character is decided nearby, so the loss falls as dense attention's does, at a fraction of the work. Everything but the
attention is written out: embedding, positions, one layer with a residual and a two-layer perceptron, Adam.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import splat_numba as splat

Array = NDArray[np.float32]
HEADS, WIDTH, HIDDEN = 4, 64, 256
RATE, BETA_1, BETA_2 = 3e-3, 0.9, 0.98


def read_text() -> tuple[NDArray[np.int64], int]:
    """This package's source as numbers of characters, and how many different ones there are."""
    files = sorted(Path(splat.__file__).parent.rglob("*.py"))
    text = "".join(path.read_text(encoding="utf-8") for path in files)
    _, numbers = np.unique(np.array(list(text)), return_inverse=True)
    return numbers.astype(np.int64), int(numbers.max()) + 1


def make_parameters(kinds: int, seq: int) -> dict[str, Array]:
    """Normal numbers of a size that keeps sums near 1."""
    rng = np.random.default_rng(0)
    sizes = {
        "embedding": (kinds, WIDTH), "position": (seq, WIDTH), "qkv": (WIDTH, 3 * WIDTH), "mix": (WIDTH, WIDTH),
        "up": (WIDTH, HIDDEN), "down": (HIDDEN, WIDTH), "read": (WIDTH, kinds),
    }  # fmt: skip
    small = {"embedding": 0.5, "position": 0.1}
    return {
        name: (small.get(name, size[0] ** -0.5) * rng.standard_normal(size)).astype(np.float32)
        for name, size in sizes.items()
    }


def split_heads(x: Array) -> Array:
    """(batch, seq, width) as (batch, heads, seq, width / heads), a view."""
    return x.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)


def join_heads(x: Array) -> Array:
    """The way back."""
    heads = x.swapaxes(1, 2)
    return heads.reshape(*heads.shape[:2], -1)


def loss_and_gradients(
    p: Mapping[str, Array], tokens: NDArray[np.int64], mask: splat.Pattern
) -> tuple[float, dict[str, Array]]:
    """Mean cross entropy of the next character, in nats, and its gradients by parameter. tokens: (batch, seq + 1)."""
    given, wanted = tokens[:, :-1], tokens[:, 1:]
    x = p["embedding"][given] + p["position"]
    q, k, v = (split_heads(part) for part in np.split(x @ p["qkv"], 3, axis=2))
    attended, vjp = splat.attention_vjp(q, k, v, mask)
    joined = join_heads(attended)
    y = x + joined @ p["mix"]
    hidden = np.maximum(y @ p["up"], 0)
    z = y + hidden @ p["down"]
    logits = z @ p["read"]
    logits -= logits.max(axis=2, keepdims=True)
    weights = np.exp(logits)
    weights /= weights.sum(axis=2, keepdims=True)
    chosen = np.take_along_axis(weights, wanted[..., None], axis=2)
    loss = float(-np.log(chosen).mean())

    dlogits = weights
    np.put_along_axis(dlogits, wanted[..., None], chosen - 1, axis=2)
    dlogits /= wanted.size
    dz = dlogits @ p["read"].T
    dhidden = (dz @ p["down"].T) * (hidden > 0)
    dy = dz + dhidden @ p["up"].T
    dattended = split_heads(dy @ p["mix"].T)
    dqkv = np.concatenate([join_heads(one) for one in vjp(dattended)], axis=2)
    dx = dy + dqkv @ p["qkv"].T
    dembedding = np.zeros_like(p["embedding"])
    np.add.at(dembedding, given, dx)
    gradients = {
        "embedding": dembedding, "position": dx.sum(axis=0), "qkv": summed(x, dqkv), "mix": summed(joined, dy),
        "up": summed(y, dhidden), "down": summed(hidden, dz), "read": summed(z, dlogits),
    }  # fmt: skip
    return loss, gradients


def summed(x: Array, dy: Array) -> Array:
    """The gradient of w in y = x w."""
    return x.reshape(-1, x.shape[2]).T @ dy.reshape(-1, dy.shape[2])


def train(mask: splat.Pattern, steps: int, seq: int, batch: int) -> tuple[list[float], float]:
    """Losses step by step, and seconds, of which compiling is not one."""
    numbers, kinds = read_text()
    parameters = make_parameters(kinds, seq)
    means: dict[str, Any] = {name: [np.zeros_like(one), np.zeros_like(one)] for name, one in parameters.items()}
    rng = np.random.default_rng(1)
    losses: list[float] = []
    begin = 0.0
    for step in range(1, steps + 1):
        places = rng.integers(0, numbers.size - seq - 1, batch)
        tokens = numbers[places[:, None] + np.arange(seq + 1)]
        loss, gradients = loss_and_gradients(parameters, tokens, mask)
        losses.append(loss)
        for name, gradient in gradients.items():
            mean, square = means[name]
            mean += (1 - BETA_1) * (gradient - mean)
            square += (1 - BETA_2) * (gradient**2 - square)
            change = mean / (1 - BETA_1**step) / (np.sqrt(square / (1 - BETA_2**step)) + 1e-8)
            parameters[name] -= np.float32(RATE) * change
        if step == 1:
            begin = time.perf_counter()
    return losses, time.perf_counter() - begin


def main() -> None:
    """Train twice from the same numbers, and print both losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    args = parser.parse_args()
    masks = {"window of 64": splat.window(63, 0), "dense (causal)": splat.causal()}
    found = {name: train(mask, args.steps, args.seq, args.batch) for name, mask in masks.items()}
    print("step".rjust(6), *(name.rjust(16) for name in found))
    for step in sorted({0, *range(args.steps // 6 - 1, args.steps, max(args.steps // 6, 1)), args.steps - 1} - {-1}):
        print(f"{step + 1:6}", *(f"{losses[step]:16.3f}" for losses, _ in found.values()))
    print("seconds".rjust(6), *(f"{seconds:15.1f}" for _, seconds in found.values()))


if __name__ == "__main__":
    main()
