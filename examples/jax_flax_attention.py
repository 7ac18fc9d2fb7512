"""A byte model in Flax, linen and nnx, whose attention becomes sparse by one argument: attention_fn.

    python examples/jax_flax_attention.py  # losses beside dense attention under the same mask, in under a minute
    python examples/jax_flax_attention.py --steps 20 --seq 128 --api nnx
    python examples/jax_flax_attention.py --device cuda --seq 8192 --plot loss.png

The text is the source of Python's own library, read as bytes. A token attends to the 32 before it and to the first 4.
The layer is flax's MultiHeadDotProductAttention. `dense` is its usual attention with that mask as an array of all
pairs; `attention_fn(MASK)` computes what the mask keeps, and never makes that array. Both models begin with the same
numbers and see the same bytes, so their losses agree but for rounding.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

import splat_numba as splat
from splat_numba.integrations.jax import attention_fn

HEADS, WIDTH, RATE = 4, 64, 3e-3
MASK = splat.window(32, 0) | (splat.sinks(4) & splat.causal())
FILES = ("argparse", "ast", "dataclasses", "datetime", "inspect", "logging/__init__", "typing", "unittest/mock")

Step = Callable[[Any, Any], tuple[Any, Any]]


def dense(query: Any, key: Any, value: Any, **_others: Any) -> Any:
    """Flax's own attention, under MASK."""
    tokens = query.shape[1]
    kept = splat.ACSR.from_pattern(MASK, tokens, tokens).to_dense()
    return linen.dot_product_attention(query, key, value, mask=jnp.asarray(kept)[None, None])


class LinenModel(linen.Module):
    """One layer between bytes, with positions and a perceptron."""

    attention: Callable[..., Any]
    tokens: int

    @linen.compact
    def __call__(self, given: Any) -> Any:
        """Logits of the next byte: (batch, tokens, 256)."""
        x = linen.Embed(256, WIDTH)(given) + linen.Embed(self.tokens, WIDTH)(jnp.arange(self.tokens))
        layer = linen.MultiHeadDotProductAttention(num_heads=HEADS, attention_fn=self.attention)  # the line
        x = x + layer(linen.LayerNorm()(x))
        x = x + linen.Dense(WIDTH)(linen.gelu(linen.Dense(4 * WIDTH)(linen.LayerNorm()(x))))
        return linen.Dense(256)(x)


class NnxModel(nnx.Module):
    """The same in nnx."""

    def __init__(self, attention: Callable[..., Any], tokens: int, rngs: nnx.Rngs) -> None:
        self.bytes, self.places = nnx.Embed(256, WIDTH, rngs=rngs), nnx.Embed(tokens, WIDTH, rngs=rngs)
        self.layer = nnx.MultiHeadAttention(
            HEADS, WIDTH, decode=False, rngs=rngs,
            attention_fn=attention,  # the line
        )  # fmt: skip
        self.before, self.between = nnx.LayerNorm(WIDTH, rngs=rngs), nnx.LayerNorm(WIDTH, rngs=rngs)
        self.up, self.down = nnx.Linear(WIDTH, 4 * WIDTH, rngs=rngs), nnx.Linear(4 * WIDTH, WIDTH, rngs=rngs)
        self.read = nnx.Linear(WIDTH, 256, rngs=rngs)

    def __call__(self, given: Any) -> Any:
        """Logits of the next byte: (batch, tokens, 256)."""
        x = self.bytes(given) + self.places(jnp.arange(given.shape[1]))
        x = x + self.layer(self.before(x))
        x = x + self.down(nnx.gelu(self.up(self.between(x))))
        return self.read(x)


def cross_entropy(logits: Any, wanted: Any) -> Any:
    """Mean, in nats."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean()


def linen_step(attention: Callable[..., Any], tokens: int) -> tuple[Any, Step]:
    """State and (state, bytes) -> (state, loss)."""
    model, rule = LinenModel(attention, tokens), optax.adam(RATE)
    parameters = model.init(jax.random.key(0), jnp.zeros((1, tokens), jnp.int32))

    @jax.jit
    def step(state: Any, text: Any) -> tuple[Any, Any]:
        def loss_of(p: Any) -> Any:
            return cross_entropy(model.apply(p, text[:, :-1]), text[:, 1:])

        loss, gradients = jax.value_and_grad(loss_of)(state[0])
        updates, means = rule.update(gradients, state[1])
        return (optax.apply_updates(state[0], updates), means), loss

    return (parameters, rule.init(parameters)), step


def nnx_step(attention: Callable[..., Any], tokens: int) -> tuple[Any, Step]:
    """The same of the nnx model, which changes in place."""
    model = NnxModel(attention, tokens, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(RATE), wrt=nnx.Param)

    @nnx.jit
    def change(model: Any, optimizer: Any, text: Any) -> Any:
        def loss_of(one: Any) -> Any:
            return cross_entropy(one(text[:, :-1]), text[:, 1:])

        loss, gradients = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, gradients)
        return loss

    return None, lambda state, text: (state, change(model, optimizer, text))


APIS = {"linen": linen_step, "nnx": nnx_step}


def read_text() -> Any:
    """Some of the standard library's sources, as bytes."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    return np.frombuffer(b"".join((folder / f"{name}.py").read_bytes() for name in FILES), np.uint8).astype(np.int32)


def train(api: str, attention: Callable[..., Any], steps: int, tokens: int, batch: int) -> tuple[list[float], float]:
    """Losses step by step, and seconds of all but the first, which compiles."""
    text, rng = read_text(), np.random.default_rng(1)
    state, step = APIS[api](attention, tokens)
    losses, begin = list[float](), 0.0
    for number in range(steps):
        places = rng.integers(0, text.size - tokens - 1, batch)
        state, loss = step(state, jnp.asarray(text[places[:, None] + np.arange(tokens + 1)]))
        losses.append(float(loss))
        if number == 0:
            begin = time.perf_counter()
    return losses, time.perf_counter() - begin


def plot(found: dict[str, tuple[list[float], float]], path: str) -> None:
    """All losses in one figure, dense attention's broad under ours."""
    from matplotlib import pyplot as plt

    for name, (losses, _) in found.items():
        broad = name.endswith("dense")
        plt.plot(np.array(losses) / np.log(2), linewidth=4.0 if broad else 1.2, alpha=0.4 if broad else 1.0, label=name)
    plt.xlabel("step")
    plt.ylabel("bits per byte")
    plt.legend()
    plt.savefig(path, dpi=120)


def main() -> None:
    """Train each model twice and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--seq", type=int, default=512)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--api", choices=[*APIS, "both"], default="both")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--plot", help="a PNG of all losses")
    args = parser.parse_args()
    jax.config.update("jax_default_device", jax.devices(args.device)[0])
    ways = {"dense": dense, "splat": attention_fn(MASK)}
    found = {
        f"{api} {name}": train(api, one, args.steps, args.seq, args.batch)
        for api in APIS
        if args.api in (api, "both")
        for name, one in ways.items()
    }
    print("step".rjust(6), *(name.rjust(14) for name in found))
    for step in sorted({0, *range(args.steps // 6 - 1, args.steps, max(args.steps // 6, 1)), args.steps - 1} - {-1}):
        print(f"{step + 1:6}", *(f"{losses[step]:14.4f}" for losses, _ in found.values()))
    print("s/step".rjust(6), *(f"{seconds / max(args.steps - 1, 1):14.4f}" for _, seconds in found.values()))
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
