"""Problem: the shapes and types of one attention call, as given; nothing here is decided."""

from __future__ import annotations

from dataclasses import dataclass, replace

from splat_numba.gen.language.dtypes import IEEE, ITEMSIZE, accumulator


@dataclass(frozen=True, slots=True)
class Problem:
    """seq_q, seq_kv: tokens; head_dim, value_dim: elements; dtype: "float16", "bfloat16", "float32" or "float64";
    precision: of products of float32, "ieee" or "tf32".
    """

    seq_q: int
    seq_kv: int
    head_dim: int
    value_dim: int
    dtype: str
    batch: int = 1
    heads_q: int = 1
    heads_kv: int = 1
    precision: str = IEEE

    def sizes(self, name: str) -> tuple[int, int, int, int]:
        """(batch, heads, seq, dim) of an array of a call by its name: q, k, v or out, or a gradient of one."""
        of = name.removeprefix("d")
        heads, seq = (self.heads_kv, self.seq_kv) if of in ("k", "v") else (self.heads_q, self.seq_q)
        return self.batch, heads, seq, self.head_dim if of in ("q", "k") else self.value_dim

    @property
    def lse_sizes(self) -> tuple[int, int, int]:
        """(batch, heads_q, seq_q)."""
        return self.batch, self.heads_q, self.seq_q

    def query_heads(self, heads: tuple[int, ...] | None) -> tuple[int, ...]:
        """Those that are named, or with None all."""
        return tuple(range(self.heads_q)) if heads is None else heads

    def transposed(self) -> Problem:
        """The problem of a plan on the transposed mask (`Geometry.transposed`), as a backward pass wants for dk and dv.

        A plan's rows are the keys then, and its columns the queries: seq_q and seq_kv are exchanged, and so are all
        names with q and kv in a pass (tile_q keys a row block, tile_kv queries a tile). Every query head walks the
        mask on its own, whether it shares its keys or not, so that there are heads_q of both.
        """
        return replace(self, seq_q=self.seq_kv, seq_kv=self.seq_q, heads_kv=self.heads_q)

    @property
    def compute_dtype(self) -> str:
        """What is accumulated: float64 for float64, float32 for everything else."""
        return accumulator(self.dtype)

    @property
    def itemsize(self) -> int:
        """Bytes of one stored element."""
        return ITEMSIZE[self.dtype]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What a GPU's plan depends on beside mask, problem and machine; texts of a CPU serve both.

    ragged: key lengths differ between batch entries; negate: the scale is negative.
    """

    ragged: bool = False
    negate: bool = False
