"""Passes whose row blocks and key tiles are boxes of a strided view: what a tensor-copy engine can fetch in one piece.

A *View* lets one sequence axis be seen as two. In the right view every lattice, residue class or grid window is a dense
box, so no copy of q, k or v is ever permuted: the stride stands in the copy descriptor.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.sealed import Sealed
from splat_numba.gen.language.dtypes import IEEE, ITEMSIZE
from splat_numba.gen.schedules.views import Box, View

USUAL_KEYS = 128  # of a tile: the size that is tried first
WORD_BITS = 32  # keys of a word of a mask
GROUP_ROWS = 64  # query rows of one group: what one warpgroup's matrix instruction multiplies
MAX_GROUPS = 3
NONE, ALL, SOME = 0, 1, 2  # which pairs of a tile a group keeps


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class BoxTable(Sealed):
    """Row blocks, longest first, and the key tiles of each. All arrays are int32 (bits: uint32) and sealed.

    rows: (blocks, tile_q), the query row of every lane, -1 for padding.
    block: (blocks, 8), of (q_view, c1, c2, first piece, end of pieces, tiles, tiles of the blocks before, 0): where its
    box of queries starts.
    piece: (pieces, 8), of (kv_view, c1, c2, tiles, status, bits of group 0, 1, 2). Tile t of a piece starts at
    (c1 + t * kv_box.inner, c2). Two bits of status a group, group 0 lowest: NONE, ALL or SOME of the pairs with rows
    of the group are kept. Where some are, the piece has one tile, and lane r keeps key c where bit c % 32 of
    bits[entry of the group, r, c // 32] is set. Unused entries are 0.
    bits: (distinct tiles, 64, words), words = ceil(tile_kv / 32).

    In a pass that reads kept slopes no group keeps SOME, and a piece, of one tile, has the number of the group's image
    in place of its bits.
    """

    ROW_FIELDS: ClassVar[int] = 8

    q_views: tuple[View, ...]
    kv_views: tuple[View, ...]
    rows: NDArray[np.int32]
    block: NDArray[np.int32]
    piece: NDArray[np.int32]
    bits: NDArray[np.uint32]

    @property
    def nbytes(self) -> int:
        """Bytes of all tables."""
        return self.rows.nbytes + self.block.nbytes + self.piece.nbytes + self.bits.nbytes


@dataclass(frozen=True, slots=True)
class Traits:
    """All that the text of a kernel depends on: masks that share traits share the kernel.

    head_dim, value_dim: elements; dtype: of the arrays; groups: consumer warpgroups of 64 query rows each;
    tile_kv: keys of a tile; stages: tiles of K and of V in flight; blocks_per_multiprocessor: resident at once;
    partial: some tiles have a mask; skips: some group skips a tile; resumes: starts from the (out, lse) of an earlier
    pass; hands_on: a later pass may start from its own, so that it keeps what rounding to 16 bits takes off;
    ragged: key lengths differ between batch entries; negate: the scale is negative; precision: Problem's; rests:
    queries of float32 stand in shared memory as numbers of TF32, and once more as what that leaves of them.
    """

    head_dim: int
    value_dim: int
    dtype: str
    groups: int
    tile_kv: int
    stages: int
    blocks_per_multiprocessor: int
    partial: bool = True
    skips: bool = True
    resumes: bool = False
    hands_on: bool = False
    ragged: bool = False
    negate: bool = False
    precision: str = IEEE
    rests: bool = False

    @property
    def tile_q(self) -> int:
        """Query rows of a row block."""
        return GROUP_ROWS * self.groups

    @property
    def keeps_rest(self) -> bool:
        """Whether it reads or writes, beside out of 16 bits, what rounding took off."""
        return self.hands_on or (self.resumes and ITEMSIZE[self.dtype] == 2)

    @property
    def rest_row(self) -> int:
        """Bytes of a row of that, in whole chunks of 16."""
        return -(-2 * self.value_dim // 16) * 16


@dataclass(frozen=True, slots=True)
class BoxPass:
    """Row blocks of q_box.size = traits.tile_q rows, tiles of kv_box.size = traits.tile_kv keys, listed in table.

    images: blocks of 64 x 64 slopes that the pass writes or reads for each batch entry and head, 0 where none are kept.
    """

    table: BoxTable = field(repr=False)
    q_box: Box
    kv_box: Box
    traits: Traits
    order: str
    images: int = 0

    @property
    def tile_q(self) -> int:
        """Query rows of a row block."""
        return self.traits.tile_q

    @property
    def tile_kv(self) -> int:
        """Keys of a tile."""
        return self.traits.tile_kv

    @property
    def resumes(self) -> bool:
        """Whether it starts from the (out, lse) of an earlier pass."""
        return self.traits.resumes

    closed: ClassVar[bool] = False
    shared: ClassVar[bool] = True

    def grid(self, seq_q: int, seq_kv: int) -> tuple[int, int]:
        """(1, row blocks)."""
        return 1, len(self.table.block)

    def describe(self) -> str:
        """In words."""
        shape = f"{self.tile_q} x {self.tile_kv} tiles"
        if self.kv_box.outer > 1:
            q_box, kv_box = self.q_box, self.kv_box
            shape += f" (boxes {q_box.inner} x {q_box.outer} and {kv_box.inner} x {kv_box.outer})"
        resident = self.traits.blocks_per_multiprocessor
        return (
            f"{shape}, rows {self.order}, {len(self.table.piece):,} pieces and {len(self.table.bits):,} masks listed, "
            f"{resident} block{'s' if resident > 1 else ''} a multiprocessor"
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values; the table by its sizes."""
        table = self.table
        return {
            "order": self.order, "traits": asdict(self.traits), "q_box": asdict(self.q_box),
            "kv_box": asdict(self.kv_box), "pieces": len(table.piece), "masks": len(table.bits),
            "blocks": len(table.block), "bytes": table.nbytes, "images": self.images,
        }  # fmt: skip
