"""An encoder whose blocks differ in their attention alone."""

from __future__ import annotations

from typing import Any

import torch
from pretraining.setting import Setting
from pretraining.text import MASK, Batch
from torch.nn.functional import scaled_dot_product_attention

import flurka_numba
from splat_numba.integrations.torch import FlurkaAttention


class TokenAttention(torch.nn.Module):
    """Dense attention, as PyTorch's SDPA, or kernel attention: keys and values of every token."""

    def __init__(self, width: int, heads: int, kernel: bool) -> None:
        super().__init__()
        self.heads, self.kernel = heads, kernel
        self.make = torch.nn.Linear(width, 3 * width, bias=False)
        self.out = torch.nn.Linear(width, width, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, seq, width), which is the result's shape."""
        q, k, v = (split(one, self.heads) for one in self.make(x).chunk(3, dim=-1))
        found = flurka_numba.kernel_attention(q, k, v) if self.kernel else scaled_dot_product_attention(q, k, v)
        return self.out(found.transpose(1, 2).flatten(-2))


class LowRankAttention(torch.nn.Module):
    """Linformer's layer in its cheapest order, FLuRKA's: x is compressed first, then SDPA over the slots."""

    def __init__(self, width: int, heads: int, seq: int, rank: int) -> None:
        super().__init__()
        self.heads = heads
        self.w_q, self.w_k, self.w_v, self.w_o = (torch.nn.Linear(width, width, bias=False) for _ in range(4))
        self.proj_k, self.proj_v = (torch.nn.Parameter(torch.zeros(rank, seq)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, seq, width), which is the result's shape."""
        rows = self.w_q(x), self.w_k(self.proj_k @ x), self.w_v(self.proj_v @ x)
        found = scaled_dot_product_attention(*(split(one, self.heads) for one in rows))
        return self.w_o(found.transpose(1, 2).flatten(-2))


def split(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, rows, width) -> (batch, heads, rows, width / heads)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class Near(torch.nn.Module):
    """A convolution of every channel with its own weights, over the bytes around."""

    def __init__(self, width: int, size: int) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv1d(width, width, size, padding=size // 2, groups=width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, seq, width), which is the result's shape."""
        return self.convolution(x.transpose(1, 2)).transpose(1, 2)


class Block(torch.nn.Module):
    """A convolution, attention and a perceptron, each with its norm before it and its input added."""

    def __init__(self, method: str, seq: int, setting: Setting) -> None:
        super().__init__()
        width = setting.width
        perceptron = torch.nn.Linear(width, 4 * width), torch.nn.GELU(), torch.nn.Linear(4 * width, width)
        parts: list[torch.nn.Module] = [Near(width, setting.convolution)] if setting.convolution else []
        if method != "none":
            parts.append(attention(method, seq, setting))
        self.parts = torch.nn.ModuleList([*parts, torch.nn.Sequential(*perceptron)])
        self.norms = torch.nn.ModuleList([torch.nn.LayerNorm(width) for _ in self.parts])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """x: (batch, seq, width), which is the result's shape."""
        for part, norm in zip(self.parts, self.norms, strict=True):
            x = x + part(norm(x))
        return x


class Encoder(torch.nn.Module):
    """The logits of masked bytes."""

    def __init__(self, method: str, seq: int, setting: Setting) -> None:
        super().__init__()
        self.embedding = torch.nn.Embedding(MASK + 1, setting.width)
        self.position = torch.nn.Parameter(waves(seq, setting.width))
        self.blocks = torch.nn.Sequential(*(Block(method, seq, setting) for _ in range(setting.layers)))
        self.read = torch.nn.Sequential(torch.nn.LayerNorm(setting.width), torch.nn.Linear(setting.width, 256))

    def forward(self, batch: Batch) -> torch.Tensor:
        """(masked bytes of the batch, 256)."""
        found = self.blocks(self.embedding(batch.tokens) + self.position)
        return self.read(found.flatten(0, 1)[batch.places])


def attention(method: str, seq: int, setting: Setting) -> torch.nn.Module:
    """The layer, with weights of the same size whichever it is."""
    width, heads, rank = setting.width, setting.heads, setting.rank
    if method in ("dense", "kernel"):
        return TokenAttention(width, heads, method == "kernel")
    if method == "low_rank":
        layer: torch.nn.Module = LowRankAttention(width, heads, seq, rank)
    else:
        layer = FlurkaAttention(width, heads, seq, rank)
        with torch.no_grad():  # as torch.nn.Linear begins, which all the others are made of
            for name in ("w_q", "w_k", "w_v", "w_o"):
                torch.nn.init.uniform_(getattr(layer, name), -(width**-0.5), width**-0.5)
    with torch.no_grad():
        layer.proj_k.copy_(averages(rank, seq))
        layer.proj_v.copy_(averages(rank, seq))
    return layer


def averages(rank: int, seq: int) -> torch.Tensor:
    """(rank, seq): each slot begins as the mean of its own neighbouring tokens."""
    each = seq // rank
    return torch.eye(rank).repeat_interleave(each, dim=1) / each


def waves(seq: int, width: int) -> torch.Tensor:
    """(seq, width): sines and cosines of every position, so that neighbours are alike; learned from there on."""
    turns = torch.arange(seq)[:, None] * 10000.0 ** (-torch.arange(0, width, 2) / width)
    return torch.stack([turns.sin(), turns.cos()], dim=-1).flatten(-2)


def parameter_groups(model: torch.nn.Module, rate: float) -> list[dict[str, Any]]:
    """For AdamW. Projections get a tenth of the rate: a slot sums all tokens, so steps of its many weights add up."""
    projections = [one for name, one in model.named_parameters() if "proj_" in name]
    others = [one for name, one in model.named_parameters() if "proj_" not in name]
    return [{"params": others, "lr": rate}, {"params": projections, "lr": rate / 10}]
