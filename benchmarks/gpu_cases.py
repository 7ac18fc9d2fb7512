"""The masks that gpu_attention.py times: as a pattern, and as arithmetic on (q_idx, kv_idx) for everybody else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

import splat_numba as splat

Pair = Callable[[Any, Any], Any]  # (q_idx, kv_idx), integer tensors -> bool tensor
GRID_COLUMNS = 128  # of neighborhood2d: 64 rows at 8192 tokens


@dataclass(frozen=True, slots=True)
class Target:
    """At least ``ratio`` times as fast as ``peer`` ("best": the fastest peer there is)."""

    ratio: float
    peer: str = "best"


@dataclass(frozen=True, slots=True)
class Case:
    """One mask. pair_on(device) is its definition; fa4: FlashAttention's arguments for it, None if it has none."""

    name: str
    pattern: splat.Pattern
    pair_on: Callable[[str], Pair]
    target: Target | None = None
    fa4: Mapping[str, Any] | None = None
    dense: bool = field(default=False)  # full or causal: not in the geometric mean of the sparse masks

    def mask_mod(self, device: str) -> Callable[[Any, Any, Any, Any], Any]:
        """The definition with the arguments of FlexAttention."""
        pair = self.pair_on(device)

        def keeps(_b: Any, _h: Any, q_idx: Any, kv_idx: Any) -> Any:
            return pair(q_idx, kv_idx)

        return keeps

    def rows(self, first: int, end: int, seq: int, device: str) -> torch.Tensor:
        """Rows first to end of the dense mask, (end - first, seq) bool."""
        i = torch.arange(first, end, device=device)[:, None]
        j = torch.arange(seq, device=device)[None, :]
        return torch.broadcast_to(self.pair_on(device)(i, j), (end - first, seq))


def main_cases(seq: int) -> dict[str, Case]:
    """The 14 masks of the comparison, for seq tokens (a multiple of 128)."""
    cases = (
        Case("full", splat.full(), plain(lambda i, j: (i >= 0) & (j >= 0)), Target(1.0, "FA4"), {}, dense=True),
        Case("causal", splat.causal(), plain(lambda i, j: j <= i), Target(1.0, "FA4"), {"causal": True}, dense=True),
        window_case("window512", 512, Target(1.1)),
        window_case("window128", 128, Target(1.2)),
        Case("causal_window1024", splat.window(1024, 0), plain(lambda i, j: (j <= i) & (i - j <= 1024)), Target(1.1),
             {"window_size": (1024, 0)}),
        Case("dilated512x4", splat.dilated(512, 4),
             plain(lambda i, j: ((i - j) % 4 == 0) & (abs(i - j) <= 2048)), Target(2.5, "cuDNN flex")),
        Case("dilated128x16", splat.dilated(128, 16),
             plain(lambda i, j: ((i - j) % 16 == 0) & (abs(i - j) <= 2048)), Target(5.0, "cuDNN flex")),
        strided_case("strided16", 16, Target(8.0)),
        blocked_case("blocked256", 256, Target(1.1)),
        documents_case(uneven_documents(seq), Target(1.1)),
        Case("longformer", splat.longformer(256, 64),
             plain(lambda i, j: (abs(i - j) <= 256) | (i < 64) | (j < 64)), Target(1.4)),
        bigbird_case(seq, Target(1.4)),
        Case("sparse_transformer_strided", splat.sparse_transformer_strided(128),
             plain(lambda i, j: (j <= i) & ((i - j < 128) | ((i - j) % 128 == 0))), Target(4.0)),
        Case("neighborhood2d", splat.neighborhood((seq // GRID_COLUMNS, GRID_COLUMNS), 13),
             plain(lambda i, j: (abs(i // GRID_COLUMNS - j // GRID_COLUMNS) <= 6)
                   & (abs(i % GRID_COLUMNS - j % GRID_COLUMNS) <= 6)), Target(1.4)),
    )  # fmt: skip
    return {case.name: case for case in cases}


def splat_cases(seq: int) -> dict[str, Case]:
    """SPLAT's own range: windowed, blocked and strided masks that keep 10 to 50 % of the pairs."""
    part = {1024: 2, 2048: 4, 4096: 4, 8192: 8}.get(seq, 8)  # about 1 / part of the pairs
    cases = (
        window_case(f"window{seq // part // 2}", seq // part // 2),
        blocked_case(f"blocked{seq // part // 2}", seq // part // 2),
        strided_case(f"strided{part}", part),
    )
    return {case.name: case for case in cases}


def plain(pair: Pair) -> Callable[[str], Pair]:
    """A definition that needs no table on the device."""
    return lambda _device: pair


def window_case(name: str, width: int, target: Target | None = None) -> Case:
    """|i - j| <= width."""
    return Case(name, splat.window(width), plain(lambda i, j: abs(i - j) <= width), target,
                {"window_size": (width, width)})  # fmt: skip


def strided_case(name: str, step: int, target: Target | None = None) -> Case:
    """Every step-th key."""
    return Case(name, splat.strided(step), plain(lambda i, j: (i - j) % step == 0), target)


def blocked_case(name: str, size: int, target: Target | None = None) -> Case:
    """A chunk sees itself and the one before."""
    pair = plain(lambda i, j: (i // size - 1 <= j // size) & (j // size <= i // size))
    return Case(name, splat.blocked(size, 1), pair, target)


def documents_case(lengths: tuple[int, ...], target: Target | None = None) -> Case:
    """Packed documents of these lengths."""

    def pair_on(device: str) -> Pair:
        document = torch.from_numpy(np.repeat(np.arange(len(lengths)), lengths)).to(device)
        return lambda i, j: document[i] == document[j]

    return Case("documents", splat.documents(lengths), pair_on, target)


def uneven_documents(total: int) -> tuple[int, ...]:
    """Documents of 200 to 1500 tokens; at 8192 tokens those of gpu_baseline.json (7,345,808 pairs)."""
    rng = np.random.default_rng(0)
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(int(min(rng.integers(200, 1501), total - sum(lengths))))
    return tuple(lengths)


def bigbird_case(seq: int, target: Target | None = None) -> Case:
    """Blocks of 64: window of 3, 2 global, 3 random; the definition is a table of blocks, as its users write it."""

    def pair_on(device: str) -> Pair:
        blocks = -(-seq // 64)
        # A block's draw depends on its row and the number of blocks only, so blocks of one token give the table.
        random = splat.ACSR.from_pattern(splat.random_blocks(1, 3, 0), blocks, blocks).to_dense()
        i, j = np.ogrid[:blocks, :blocks]
        table = torch.from_numpy(random | (abs(i - j) <= 1) | (i < 2) | (j < 2)).to(device)
        return lambda i, j: table[i // 64, j // 64]

    return Case("bigbird", splat.bigbird(64), pair_on, target)


def kept_pairs(case: Case, seq: int) -> int:
    """Pairs that the pattern keeps."""
    return int(splat.ACSR.from_pattern(case.pattern, seq, seq).nnz)


def differing_cases(seqs: tuple[int, ...] = (1024, 2048)) -> list[str]:
    """Where pattern and definition differ, pair by pair, on the CPU: an empty list is what is wanted."""
    wrong = []
    for seq in seqs:
        for case in (*main_cases(seq).values(), *splat_cases(seq).values()):
            dense = splat.ACSR.from_pattern(case.pattern, seq, seq).to_dense()
            wanted = case.rows(0, seq, seq, "cpu").numpy()
            index = torch.arange(seq)
            flex = case.mask_mod("cpu")(None, None, index[:, None], index[None, :]).numpy()
            if not (np.array_equal(dense, wanted) and np.array_equal(dense, np.broadcast_to(flex, dense.shape))):
                wrong.append(f"{case.name} at {seq} tokens: {int((dense != wanted).sum())} pairs differ")
    return wrong
