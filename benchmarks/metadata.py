"""Bytes that a mask's format takes, and numbers that it stores for each kept one. Needs no GPU.

    python benchmarks/metadata.py                       # writes benchmarks/results/metadata.md
    python benchmarks/metadata.py --seq 1024 --output /tmp/metadata.md

ACSR: runs as this package keeps them, 64-bit integers. tables: what its GPU kernels read of them, in words of 32 bits.
CSR and COO: 32-bit integers. BCSR: 32-bit block rows and columns, and one bit an element of the blocks that are kept in
part, without which it cannot tell them. Values: numbers stored for each that the mask keeps, zeros of blocks or of
rows padded to the longest included.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from results_files import RESULTS, made_by
from tables import markdown_table

import splat_numba as splat
from splat_numba.gen.packed.lists import PackedLists
from splat_numba.gen.packed.problem import RunTable

WORD = 4
SIZES = (64, 128)  # of blocks
PATTERNS: dict[str, Callable[[int], splat.Pattern]] = {
    "window(n / 8)": lambda n: splat.window(n // 8),
    "window(n / 20)": lambda n: splat.window(n // 20),
    "blocked(n / 16, before=1)": lambda n: splat.blocked(n // 16, before=1),
    "blocked(n / 4, before=1)": lambda n: splat.blocked(n // 4, before=1),
    "strided(4)": lambda _: splat.strided(4),
    "strided(10)": lambda _: splat.strided(10),
    "causal": lambda _: splat.causal(),
    "window(n / 8, 0)": lambda n: splat.window(n // 8, 0),
    "longformer(n / 16, 16)": lambda n: splat.longformer(n // 16, 16),
    "full": lambda _: splat.full(),
    "dilated(n / 32, 4)": lambda n: splat.dilated(n // 32, 4),
    "columns(64, 48, count=8)": lambda _: splat.columns(64, 48, count=8),
    "documents(16 of n / 16)": lambda n: splat.documents([n // 16] * 16),
    "global_tokens(16)": lambda _: splat.global_tokens(16),
    "sinks(16)": lambda _: splat.sinks(16),
    "prefix(n / 8)": lambda n: splat.prefix(n // 8),
    "neighborhood((32, n / 32), 13)": lambda n: splat.neighborhood((32, n // 32), 13),
    "random_blocks(64, 3, seed=0)": lambda _: splat.random_blocks(64, 3, seed=0),
    "bigbird(64)": lambda _: splat.bigbird(64),
    "sparse_transformer_strided(n / 32)": lambda n: splat.sparse_transformer_strided(n // 32),
    "sparse_transformer_fixed(n / 32, 4)": lambda n: splat.sparse_transformer_fixed(n // 32, 4),
}


def table_bytes(acsr: splat.ACSR) -> int:
    """Of the lists that GPU kernels read."""
    lists = PackedLists.of(RunTable.of(acsr))
    return sum(x.nbytes for x in (lists.rows, lists.runs, lists.columns) if x is not None)


def blocks_of(acsr: splat.ACSR, size: int) -> tuple[int, int]:
    """(blocks that the mask touches, those it keeps in part)."""
    indptr, columns = acsr.to_csr()
    rows = np.repeat(np.arange(acsr.shape[0]), np.diff(indptr))
    pairs: NDArray[np.int64] = np.unique((rows // size) * acsr.shape[1] + columns // size, return_counts=True)[1]
    return pairs.size, int((pairs < size * size).sum())


def bcsr_bytes(acsr: splat.ACSR, size: int) -> int:
    """Block rows, block columns, bits of partial blocks."""
    blocks, partial = blocks_of(acsr, size)
    return WORD * (-(-acsr.shape[0] // size) + 1 + blocks) + partial * size * size // 8


def line(name: str, n: int) -> list[str]:
    """A mask's bytes, then its stored numbers a kept one."""
    acsr = splat.ACSR.from_pattern(PATTERNS[name](n), n, n)
    pairs, rows = acsr.nnz, acsr.shape[0]
    longest = RunTable.of(acsr).longest
    sizes = [
        acsr.nbytes, table_bytes(acsr), WORD * (rows + 1 + pairs), WORD * 2 * pairs,
        *(bcsr_bytes(acsr, size) for size in SIZES),
    ]  # fmt: skip
    stored = [longest * rows, *(blocks_of(acsr, size)[0] * size * size for size in SIZES)]
    return [
        name, str(n), f"{pairs / n**2:.1%}", *(f"{one / 1024:,.1f}" for one in sizes), "1.00",
        *(f"{one / pairs:.2f}" for one in stored),
    ]  # fmt: skip


def report(lengths: list[int]) -> str:
    """The table."""
    head = [
        "mask", "n", "kept", "ACSR KiB", "tables KiB", "CSR KiB", "COO KiB", *(f"BCSR {size} KiB" for size in SIZES),
        "packed values", "padded rows", *(f"blocks of {size}" for size in SIZES),
    ]  # fmt: skip
    body = [line(name, n) for n in lengths for name in PATTERNS]
    about = " ".join(__doc__.split("\n\n")[2].split())
    return f"# Bytes of a mask, by format\n\n{about}\n\n{made_by(__file__)}\n{markdown_table(head, body)}\n"


def main() -> None:
    """Write and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", nargs="+", type=int, default=[1024, 4096])
    parser.add_argument("--output", type=Path, default=RESULTS / "metadata.md")
    args = parser.parse_args()
    text = report(args.seq)
    args.output.parent.mkdir(parents=True, exist_ok=True)
    args.output.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
