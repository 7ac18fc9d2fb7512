"""FlexAttention's BlockMask from masks of ours, and ours from a BlockMask."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.arguments.masks import Mask, Stored, split_heads
from splat_numba.arguments.sizes import check_size
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.integrations.flex_masks import mask_function
from splat_numba.integrations.row_chunks import stored_by_rows
from splat_numba.plain import kind


def to_block_mask(mask: Mask, seq_q: int, seq_kv: int, *, device: Any = "cpu", block_size: int = 128) -> Any:
    """A BlockMask of torch.nn.attention.flex_attention that keeps the pairs that ``mask`` keeps.

    Costs time and memory in proportion to the kept pairs, where create_block_mask() looks at every pair. Patterns
    become arithmetic on indices; neighborhood, random_blocks, global_tokens with indices, and stored masks become a
    (seq_q, seq_kv) table on the device.

    Parameters
    ----------
    mask : Pattern, ACSR, bool array (seq_q, seq_kv), or a list of those, one a query head
        A list gives a BlockMask with a head axis.
    seq_q, seq_kv : int
        The lengths, in tokens.
    device : device of PyTorch
        Where its tensors are.
    block_size : int
        Queries and keys of a block.

    Returns
    -------
    BlockMask
        For flex_attention.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError
        For what does not fit.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    size = check_size("block_size", block_size, 1)
    heads = len(mask) if isinstance(mask, (list, tuple)) else 1
    parts = split_heads(mask, heads, check_size("seq_q", seq_q, 1), check_size("seq_kv", seq_kv, 1))
    counted: list[Any] = [None] * heads
    functions: list[Any] = [None] * heads
    for stored, users in parts:
        counts = _counts(stored, seq_q, seq_kv, size)
        function = mask_function(stored, seq_q, seq_kv, device)
        for head in users:
            counted[head], functions[head] = counts, function
    counts = np.stack(counted)[None]
    full = counts == size * size
    numbers, indices = _ordered((counts > 0) & ~full)
    full_numbers, full_indices = _ordered(full)
    arrays = [torch.from_numpy(one).to(device) for one in (numbers, indices, full_numbers, full_indices)]
    return BlockMask.from_kv_blocks(
        *arrays, BLOCK_SIZE=size, mask_mod=_by_head(functions, parts), seq_lengths=(seq_q, seq_kv)
    )


def _counts(mask: Stored, seq_q: int, seq_kv: int, size: int) -> NDArray[np.int64]:
    """Kept pairs of every block, (blocks of queries, blocks of keys)."""
    acsr = ACSR.from_pattern(mask, seq_q, seq_kv) if isinstance(mask, Pattern) else mask
    across, down = -(-seq_kv // size), -(-seq_q // size)
    rows = np.repeat(np.arange(seq_q), acsr.runs.row_nnz)
    blocks = rows // size * across + acsr.columns() // size
    return np.bincount(blocks, minlength=down * across).reshape(down, across)


def _ordered(chosen: NDArray[np.bool_]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """How many blocks of each row are chosen, and the blocks with the chosen ones first."""
    order = np.argsort(~chosen, axis=-1, kind="stable")
    return chosen.sum(-1).astype(np.int32), order.astype(np.int32)


def _by_head(functions: list[Any], parts: list[Any]) -> Any:
    """One function of every head's."""
    if len(parts) == 1:
        return functions[0]
    import torch

    def keeps(batch: Any, head: Any, q_idx: Any, kv_idx: Any) -> Any:
        kept = functions[0](batch, head, q_idx, kv_idx)
        for number, function in enumerate(functions[1:], 1):
            kept = torch.where(head == number, function(batch, head, q_idx, kv_idx), kept)
        return kept

    return keeps


def from_block_mask(block_mask: Any) -> ACSR | list[ACSR]:
    """The pairs that a BlockMask of FlexAttention keeps, as an ACSR.

    Its mask_mod is asked about its partial blocks, a row of blocks at a time; costs time and memory in proportion to
    the pairs of its blocks.

    Parameters
    ----------
    block_mask : BlockMask
        As create_block_mask() makes it.

    Returns
    -------
    ACSR, or a list of them
        One a head, if it has heads.

    Raises
    ------
    ArgumentTypeError
        For other objects.
    ArgumentError
        Where batch entries differ.
    """
    import torch
    from torch.nn.attention.flex_attention import BlockMask

    if not isinstance(block_mask, BlockMask):
        raise ArgumentTypeError(
            f"block_mask wanted as a BlockMask of torch.nn.attention.flex_attention, got {kind(block_mask)}. Make one "
            "with create_block_mask."
        )
    batch, heads = block_mask.kv_num_blocks.shape[:2]
    with torch.no_grad():
        found = [[_stored(block_mask, b, h) for h in range(heads)] for b in range(batch)]
    if any(one != found[0] for one in found):
        raise ArgumentError(
            f"block_mask wanted with the same pairs for all batch entries, got {batch} that differ. Give each entry's "
            "with its own attention call, or lengths as kv_lengths."
        )
    return found[0] if heads > 1 else found[0][0]


def _stored(block_mask: Any, batch: int, head: int) -> ACSR:
    seq_q, seq_kv = block_mask.seq_lengths
    size = block_mask.BLOCK_SIZE[0]
    return stored_by_rows(seq_q, seq_kv, size, lambda start: _kept_rows(block_mask, batch, head, start))


def _kept_rows(block_mask: Any, batch: int, head: int, start: int) -> NDArray[np.bool_]:
    """The queries of one row of blocks, (queries, seq_kv), True where a pair is kept."""
    import torch

    (seq_q, seq_kv), (size_q, size_kv) = block_mask.seq_lengths, block_mask.BLOCK_SIZE
    device = block_mask.kv_num_blocks.device
    q_idx = torch.arange(start, min(start + size_q, seq_q), device=device)
    kept = torch.zeros(len(q_idx), seq_kv, dtype=torch.bool, device=device)
    block = batch, head, start // size_q
    partial = _keys(block_mask.kv_num_blocks, block_mask.kv_indices, block, size_kv, seq_kv)
    if len(partial):
        asked = torch.vmap(
            torch.vmap(block_mask.mask_mod, in_dims=(None, None, None, 0)), in_dims=(None, None, 0, None)
        )
        place = torch.tensor([batch, head], device=device)
        kept[:, partial] = asked(place[0], place[1], q_idx, partial).to(torch.bool)
    if block_mask.full_kv_num_blocks is not None:
        kept[:, _keys(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, block, size_kv, seq_kv)] = True
    rows: NDArray[np.bool_] = kept.cpu().numpy()
    return rows


def _keys(numbers: Any, indices: Any, block: tuple[int, int, int], size: int, seq_kv: int) -> Any:
    """The keys of the blocks that a row of blocks lists."""
    import torch

    listed = indices[block][: int(numbers[block])].to(torch.int64)
    keys = (listed[:, None] * size + torch.arange(size, device=listed.device)).flatten()
    return keys[keys < seq_kv]


__all__ = ["from_block_mask", "to_block_mask"]
