"""A byte-level language model in PyTorch under window + sinks, trained twice: by splat, and by SDPA with a dense mask.

    python examples/train_torch_language_model.py  # a table of both losses; both together in under 3 minutes on 2 cores
    python examples/train_torch_language_model.py --steps 10 --seq 256
    python examples/train_torch_language_model.py --device cuda --seq 8192 --batch 8 --plot loss.png

The text is the Python standard library's own sources. The model is an ordinary one: embeddings, blocks of
self-attention and perceptron, AdamW. Attention keeps the 128 bytes before a byte and the first 4 of the sequence. Both
trainings start from the same numbers and see the same bytes; they compute the same attention, so their losses differ by
rounding alone. On a GPU the model runs under autocast, in bfloat16.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import splat_numba as splat
from splat_numba.integrations.torch import SparseSelfAttention

MASK = (splat.window(128, 0) | splat.sinks(4)) & splat.causal()  # sinks alone would show byte 0 the three after it
WIDTH, HEADS, LAYERS = 128, 4, 2
LEARNING_RATE, WARM_UP = 3e-3, 20


def read_bytes() -> torch.Tensor:
    """The standard library's modules, one after the other, as numbers below 256."""
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    return torch.from_numpy(np.frombuffer(b"".join(path.read_bytes() for path in files), np.uint8).astype(np.int64))


class DenseMasked(torch.nn.Module):
    """What stands in a SparseAttention's place: SDPA over all pairs, with the mask as a dense one."""

    def __init__(self, seq: int) -> None:
        super().__init__()
        mask = splat.ACSR.from_pattern(MASK, seq, seq).to_dense()
        self.register_buffer("mask", torch.from_numpy(mask), persistent=False)

    def forward(self, q: Any, k: Any, v: Any, _kv_lengths: Any = None) -> torch.Tensor:
        """Attention of q, k and v, (batch, seq, heads, dim)."""
        turned = [one.transpose(1, 2) for one in (q, k, v)]
        found = torch.nn.functional.scaled_dot_product_attention(*turned, attn_mask=self.mask)
        return found.transpose(1, 2)


class Block(torch.nn.Module):
    """Attention and a perceptron, each with its norm before it and its input added."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(WIDTH) for _ in range(2)])
        self.attention = SparseSelfAttention(WIDTH, HEADS, MASK)
        self.perceptron = torch.nn.Sequential(
            torch.nn.Linear(WIDTH, 4 * WIDTH), torch.nn.GELU(), torch.nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, seq, width)."""
        x = x + self.attention(self.norms[0](x))
        return x + self.perceptron(self.norms[1](x))


class LanguageModel(torch.nn.Module):
    """The logits of each next byte."""

    def __init__(self, seq: int) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(256, WIDTH)
        self.position = torch.nn.Embedding(seq, WIDTH)
        self.blocks = torch.nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.read = torch.nn.Sequential(torch.nn.LayerNorm(WIDTH), torch.nn.Linear(WIDTH, 256))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """tokens: (batch, seq), numbers below 256."""
        return self.read(self.blocks(self.embedding(tokens) + self.position.weight[: tokens.shape[1]]))


def train(dense: bool, args: argparse.Namespace) -> tuple[list[float], float]:
    """Losses in bits per byte, step by step, and seconds of all steps but the first, which compiles."""
    torch.manual_seed(0)
    model = LanguageModel(args.seq)
    if dense:
        for block in model.blocks:
            block.attention.attention = DenseMasked(args.seq)
    model.to(args.device)
    text, places = read_bytes(), np.random.default_rng(1)
    optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, betas=(0.9, 0.98))
    rising = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    losses: list[float] = []
    begin = 0.0
    for step in range(args.steps):
        starts = places.integers(0, len(text) - args.seq - 1, args.batch)
        tokens = torch.stack([text[start : start + args.seq + 1] for start in starts]).to(args.device)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.device == "cuda"):
            logits = model(tokens[:, :-1])
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        rising.step()
        losses.append(loss.item() / float(np.log(2)))
        if step == 0:
            begin = time.perf_counter()
    return losses, time.perf_counter() - begin


def plot(found: dict[str, tuple[list[float], float]], path: str) -> None:
    """Both losses in one figure."""
    from matplotlib import pyplot as plt

    for (name, (losses, _)), style in zip(found.items(), ("-", "--"), strict=True):
        plt.plot(losses, style, label=name)
    plt.xlabel("step")
    plt.ylabel("bits per byte")
    plt.legend()
    plt.savefig(path, dpi=120)


def main() -> None:
    """Train twice, and print both losses."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--seq", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument("--plot", help="a PNG of both losses")
    args = parser.parse_args()
    found = {"splat": train(False, args), "SDPA, dense mask": train(True, args)}
    print("step".rjust(6), *(name.rjust(18) for name in found), "bits per byte".rjust(18))
    for step in sorted({0, *range(args.steps // 6 - 1, args.steps, max(args.steps // 6, 1)), args.steps - 1} - {-1}):
        print(f"{step + 1:6}", *(f"{losses[step]:18.4f}" for losses, _ in found.values()))
    print("  time", *(f"{seconds:17.1f}s" for _, seconds in found.values()))
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
