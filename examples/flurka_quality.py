"""How good FLuRKA's attention is: its error against full attention, and a small classifier trained with each method.

    python examples/flurka_quality.py  # tables, in 11 s on two cores
    python examples/flurka_quality.py --output found  # the numbers, and with matplotlib a picture

1. Error. Smooth keys and values, projections that average neighbours. As the rank grows, softmax(Q K'^T) V' comes
   nearer to softmax(Q K^T) V; as the number of random features grows, FLuRKA ("favor") comes nearer to
   softmax(Q K'^T) V'. The sum of the two bounds FLuRKA's error, and the second part has a bound of its own: if every
   estimate of exp(q.k') is within (1 +- delta), a row moves by at most 2 delta / (1 - delta) times the largest |v'|.
2. Recall. The first half of a sequence holds 16 keys with values, in random places; the second half asks for keys, and
   each answer is the value that stood beside that key. One attention layer, trained by Adam on batches that
   are never repeated, with gradients from the vjp functions; methods are compared at equal steps and at equal time.
   With --gpu the arrays are CuPy's, which takes NumPy's functions, the sequences eight times as long, and the steps
   1000.
"""

from __future__ import annotations

import argparse
import importlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flurka_numba as flurka

Array = NDArray[Any]


def main() -> None:
    """Measure, print the tables, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=None, help="of training, for each method: 300, or 1000 on a GPU")
    parser.add_argument("--seq", type=int, default=None, help="tokens of a sequence: 256, or 2048 on a GPU")
    parser.add_argument("--rank", type=int, default=128, help="slots of low-rank and FLuRKA; divides seq")
    parser.add_argument("--batch", type=int, default=8, help="sequences of a step")
    parser.add_argument("--gpu", action="store_true", help="train on an NVIDIA GPU, with CuPy")
    parser.add_argument("--output", type=Path, default=None, help="folder for flurka_quality.png and .json")
    args = parser.parse_args()
    seq, steps = args.seq or (2048 if args.gpu else 256), args.steps or (1000 if args.gpu else 300)
    errors = measure_errors()
    print(error_table(errors))
    task = Recall(seq, args.batch, importlib.import_module("cupy" if args.gpu else "numpy"))
    curves = {name: train(name, task, args.rank, steps) for name in METHODS}
    print(training_table(curves))
    if args.output:
        args.output.mkdir(parents=True, exist_ok=True)
        found = {"errors": errors, "curves": curves, "arguments": {"seq": seq, "rank": args.rank, "gpu": args.gpu}}
        (args.output / "flurka_quality.json").write_text(json.dumps(found) + "\n", encoding="utf-8")
        draw(errors, curves, args.output / "flurka_quality.png")


# 1. Error against full attention


def softmax_attention(q: Array, k: Array, v: Array) -> Array:
    """Dense attention with scale 1/sqrt(head_dim)."""
    scores = q @ k.T / q.shape[1] ** 0.5
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    result: Array = weights / weights.sum(axis=1, keepdims=True) @ v
    return result


def smooth(rng: np.random.Generator, seq: int, dim: int, waves: int) -> Array:
    """Tokens that change slowly: random sums of the first cosines, of unit variance."""
    basis = np.cos(np.pi * (np.arange(seq) + 0.5)[:, None] / seq * np.arange(waves))
    result: Array = basis @ rng.standard_normal((waves, dim)) / (waves / 2) ** 0.5
    return result


def averages(rank: int, seq: int) -> Array:
    """The projection whose slots are means of neighbouring tokens."""
    return np.kron(np.eye(rank), np.full((1, seq // rank), rank / seq))


def measure_errors(seq: int = 1024, dim: int = 8) -> list[dict[str, float]]:
    """The largest error of a row, the two terms that bound it, and the bound of the second: a dict a setting."""
    rng = np.random.default_rng(0)
    q = 0.35 * rng.standard_normal((seq, dim))
    k, v = 0.35 * smooth(rng, seq, dim, 64), smooth(rng, seq, dim, 64)
    settings = [(rank, 4096) for rank in (8, 16, 32, 64, 128, 256)]
    settings += [(128, features) for features in (16, 64, 256, 1024, 16384)]
    return [_error(q, k, v, rank, features) for rank, features in settings]


def _error(q: Array, k: Array, v: Array, rank: int, features: int) -> dict[str, float]:
    proj = averages(rank, len(k))
    omega = flurka.draw_orthogonal_features(features, q.shape[1], seed=1)
    slots, values = proj @ k, proj @ v
    full, low_rank = softmax_attention(q, k, v), softmax_attention(q, slots, values)
    ours = flurka.attention(q, k, v, proj, feature_map="favor", omega=omega, eps=0.0)
    delta = _estimate_errors(q, slots, omega)
    moved = np.where(delta < 0.5, 2 * delta / np.maximum(1 - delta, 0.5), 2.0)  # weights of a row never move by more
    return {
        "rank": rank,
        "features": features,
        "error": _longest(ours - full),
        "low-rank term": _longest(low_rank - full),
        "feature term": _longest(ours - low_rank),
        "bound": _longest(low_rank - full) + float(moved.max() * _longest(values)),
    }


def _longest(rows: Array) -> float:
    return float(np.linalg.norm(rows, axis=-1).max())


def _estimate_errors(q: Array, k: Array, omega: Array) -> Array:
    """delta of every query: how far phi(q).phi(k) is from exp(q.k / sqrt(head_dim)), relative, at worst."""

    def phi(x: Array) -> Array:
        scaled = x * x.shape[1] ** -0.25
        half_square = np.square(scaled).sum(axis=1, keepdims=True) / 2
        result: Array = np.exp(scaled @ omega.T - half_square) / len(omega) ** 0.5
        return result

    exact = np.exp(q @ k.T / q.shape[1] ** 0.5)
    result: Array = np.abs(phi(q) @ phi(k).T / exact - 1).max(axis=1)
    return result


def error_table(errors: list[dict[str, float]]) -> str:
    """The errors as text."""
    names = list(errors[0])
    lines = [" ".join(f"{name:>13}" for name in names)]
    lines += [" ".join(f"{row[name]:>13.4g}" for name in names) for row in errors]
    return "\n".join(["Largest error of a row against full attention, and its bound", *lines, ""])


# 2. A classifier on a task of long range

KEYS, VALUES, MODEL_DIM, HEADS = 16, 8, 64, 4
METHODS = ("dense", "low_rank", "kernel", "flurka")


@dataclass(frozen=True, slots=True)
class Recall:
    """Batches of the task: key and value numbers of every token, and the answers that its second half wants.

    arrays: NumPy, or what has its functions.
    """

    seq: int
    size: int
    arrays: Any

    def draw(self, rng: np.random.Generator) -> tuple[Array, Array, Array]:
        """key and value (size, seq), KEYS and VALUES where a token has none; answers (size, seq - seq // 2)."""
        half, rows = self.seq // 2, np.arange(self.size)[:, None]
        key, value = np.full((self.size, self.seq), KEYS), np.full((self.size, self.seq), VALUES)
        places = rng.permuted(np.tile(np.arange(half), (self.size, 1)), axis=1)[:, :KEYS]
        key[rows, places] = np.arange(KEYS)
        value[rows, places] = rng.integers(0, VALUES, places.shape)
        key[:, half:] = rng.integers(0, KEYS, (self.size, self.seq - half))
        answers = value[rows, places[rows, key[:, half:]]]
        return self.arrays.asarray(key), self.arrays.asarray(value), self.arrays.asarray(answers)


def dense_vjp(q: Array, k: Array, v: Array) -> tuple[Array, Callable[[Array], tuple[Any, ...]]]:
    """Full attention by NumPy's products, in the same form as the package's vjp functions."""
    scale = np.float32(q.shape[-1] ** -0.5)
    weights = scale * (q @ k.swapaxes(-1, -2))
    weights -= weights.max(axis=-1, keepdims=True)
    np.exp(weights, out=weights)
    weights /= weights.sum(axis=-1, keepdims=True)

    def vjp(dout: Array) -> tuple[Any, ...]:
        dscores = dout @ v.swapaxes(-1, -2)
        dscores -= np.einsum("bhij,bhij->bhi", dscores, weights)[..., None]
        dscores *= weights
        dscores *= scale
        return dscores @ k, dscores.swapaxes(-1, -2) @ q, weights.swapaxes(-1, -2) @ dout, None, None

    return weights @ v, vjp


def attend(method: str, q: Array, k: Array, v: Array, parameters: dict[str, Array]) -> tuple[Array, Any]:
    """(out, vjp) of one of the methods."""
    if method == "dense":
        return dense_vjp(q, k, v)
    if method == "kernel":
        return flurka.kernel_attention_vjp(q, k, v)
    if method == "low_rank":
        return flurka.low_rank_attention_vjp(q, k, v, parameters["proj_k"], parameters["proj_v"])
    return flurka.attention_vjp(q, k, v, parameters["proj_k"], parameters["proj_v"])


def initial(method: str, task: Recall, rank: int) -> dict[str, Array]:
    """Parameters by name, the same for all methods, float32. Projections begin as sums of neighbours, and what stands
    for no key and no value as 0: otherwise a slot of a long sequence is first of all a sum of empty tokens.
    """
    rng = np.random.default_rng(0)
    found = {
        "keys": rng.standard_normal((KEYS + 1, MODEL_DIM)),
        "values": rng.standard_normal((VALUES + 1, MODEL_DIM)),
        **{f"w_{name}": rng.standard_normal((MODEL_DIM, MODEL_DIM)) / MODEL_DIM**0.5 for name in "qkvo"},
        "classes": np.zeros((MODEL_DIM, VALUES)),
    }
    found["keys"][KEYS] = found["values"][VALUES] = 0.0
    if method in ("low_rank", "flurka"):
        sums = averages(rank, task.seq) * task.seq / rank
        found |= {"proj_k": sums, "proj_v": sums}
    return {name: task.arrays.asarray(array.astype(np.float32)) for name, array in found.items()}


def split(x: Array) -> Array:
    """(batch, seq, model_dim) -> (batch, heads, seq, head_dim)."""
    return x.reshape(*x.shape[:2], HEADS, -1).swapaxes(1, 2)


def merge(x: Array) -> Array:
    """(batch, heads, seq, head_dim) -> (batch, seq, model_dim)."""
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def outer(x: Array, dy: Array) -> Array:
    """The gradient of w in y = x @ w."""
    result: Array = x.reshape(-1, x.shape[-1]).T @ dy.reshape(-1, dy.shape[-1])
    return result


def step_gradients(
    method: str, p: dict[str, Array], batch: tuple[Array, ...], rows: dict[int, Array]
) -> tuple[float, dict[str, Array]]:
    """The share of right answers, and the gradients of the cross entropy. rows: unit matrices by their sizes."""
    key, value, answers = batch
    half = key.shape[1] - answers.shape[1]
    x = p["keys"][key] + p["values"][value]
    q, k, v = (split(x @ p[f"w_{name}"]) for name in "qkv")
    heads, vjp = attend(method, q, k, v, p)
    merged = merge(heads)
    hidden = merged[:, half:] @ p["w_o"]
    logits = hidden @ p["classes"]
    right = float((logits.argmax(axis=-1) == answers).mean())

    dlogits = np.exp(logits - logits.max(axis=-1, keepdims=True))
    dlogits /= dlogits.sum(axis=-1, keepdims=True)
    dlogits -= rows[VALUES][answers]
    dlogits /= answers.size
    dhidden = dlogits @ p["classes"].T
    dmerged = np.zeros_like(merged)
    dmerged[:, half:] = dhidden @ p["w_o"].T
    *dheads, dproj_k, dproj_v = vjp(split(dmerged))
    found = {"classes": outer(hidden, dlogits), "w_o": outer(merged[:, half:], dhidden)}
    dx = np.zeros_like(x)
    for name, gradient in zip("qkv", map(merge, dheads), strict=True):
        found[f"w_{name}"] = outer(x, gradient)
        dx += gradient @ p[f"w_{name}"].T
    for name, which in (("keys", key), ("values", value)):
        found[name] = outer(rows[len(p[name])][which], dx)
    if "proj_k" in p:
        found |= {"proj_k": dproj_k, "proj_v": dproj_v}
    return right, found


def train(method: str, task: Recall, rank: int, steps: int, rate: float = 0.01) -> list[tuple[float, float]]:
    """Adam: (seconds so far, share of right answers) after every step. The first call's compilation is not counted."""
    p, rng = initial(method, task, rank), np.random.default_rng(1)
    mean, square = ({name: np.zeros_like(x) for name, x in p.items()} for _ in range(2))
    rows = {size: task.arrays.eye(size, dtype=np.float32) for size in (KEYS + 1, VALUES + 1, VALUES)}
    step_gradients(method, p, task.draw(np.random.default_rng(2)), rows)
    begin, curve = time.perf_counter(), []
    for step in range(1, steps + 1):
        right, gradients = step_gradients(method, p, task.draw(rng), rows)
        for name, gradient in gradients.items():
            mean[name] += 0.1 * (gradient - mean[name])
            square[name] += 0.01 * (gradient**2 - square[name])
            size = np.sqrt(square[name] / (1 - 0.99**step)) + 1e-8
            # A slot sums all tokens, so that steps of its many weights add up: a tenth of the others' rate.
            pace = rate * min(1.0, step / 20) * (0.1 if name.startswith("proj") else 1.0)
            p[name] -= (pace / (1 - 0.9**step) * mean[name] / size).astype(np.float32)
        if task.arrays is not np:
            task.arrays.cuda.get_current_stream().synchronize()  # a step's time is that of its work
        curve.append((time.perf_counter() - begin, right))
    return curve


def accuracy(curve: list[tuple[float, float]], until: float = float("inf"), last: int = 10) -> float:
    """The mean share of right answers over the last steps that ended by a time; 0 where none did."""
    shares = [right for seconds, right in curve if seconds <= until][-last:]
    return sum(shares) / len(shares) if shares else 0.0


def training_table(curves: dict[str, list[tuple[float, float]]]) -> str:
    """Right answers at equal steps, and at equal time, that of the fastest method's last step."""
    budget = min(curve[-1][0] for curve in curves.values())
    steps = len(next(iter(curves.values())))
    lines = [f"{'method':>10} {'ms a step':>10} {f'{steps} steps':>12} {f'{budget:.1f} s':>12}"]
    for name, curve in curves.items():
        each = curve[-1][0] / len(curve) * 1e3
        lines.append(f"{name:>10} {each:>10.1f} {accuracy(curve):>12.1%} {accuracy(curve, budget):>12.1%}")
    return "\n".join([f"Right answers (by chance {1 / VALUES:.1%})", *lines, ""])


def draw(errors: list[dict[str, float]], curves: dict[str, list[tuple[float, float]]], path: Path) -> None:
    """Errors by rank and by features, and right answers by steps and by time."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        print("no picture: python -m pip install matplotlib")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(10, 7.5))
    for axis, along, fixed in ((axes[0, 0], "rank", "features"), (axes[0, 1], "features", "rank")):
        same = max((row[fixed] for row in errors), key=[row[fixed] for row in errors].count)
        if along == "features":
            same = 128
        rows = sorted((row for row in errors if row[fixed] == same), key=lambda row: row[along])
        for name, style in (("bound", "k:"), ("error", "o-"), ("low-rank term", "--"), ("feature term", "--")):
            axis.loglog([row[along] for row in rows], [row[name] for row in rows], style, label=name)
        axis.set(xlabel=along, ylabel="largest error of a row", title=f"{fixed} = {same:g}")
        axis.legend(fontsize=8)
    for name, curve in curves.items():
        share = np.convolve([right for _, right in curve], np.full(10, 0.1), "valid")
        axes[1, 0].plot(np.arange(9, len(curve)), share, label=name)
        axes[1, 1].plot([seconds for seconds, _ in curve][9:], share, label=name)
    axes[1, 0].set(xlabel="step", ylabel="right answers")
    axes[1, 1].set(xlabel="seconds", ylabel="right answers")
    axes[1, 0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    print("wrote", path)


if __name__ == "__main__":
    main()
