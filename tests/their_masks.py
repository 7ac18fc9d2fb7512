"""Masks of xFormers, FlashAttention and NATTEN as their documentation words them, in dense NumPy, and stand-ins for
the modules themselves, which need GPUs: with these the pages' snippets of theirs run here.
"""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from splat_numba import reference


def places(seq_q, seq_kv):
    """(i, j) of every query and key, to be broadcast."""
    return np.arange(seq_q)[:, None], np.arange(seq_kv)[None, :]


def lower_triangular(seq_q, seq_kv):
    """xFormers' LowerTriangularMask: "a query Q cannot attend to a key which is farther from the initial key than Q is
    from the initial query".
    """
    i, j = places(seq_q, seq_kv)
    return j <= i


def lower_triangular_from_bottom_right(seq_q, seq_kv):
    """xFormers' LowerTriangularFromBottomRightMask: "a query Q cannot attend to a key which is nearer the final key
    than Q is to the final query".
    """
    i, j = places(seq_q, seq_kv)
    return seq_kv - 1 - j >= seq_q - 1 - i


def local_from_bottom_right(window_left, window_right):
    """xFormers' LocalAttentionFromBottomRightMask: "the query at position q can attend the key at position k if
    q - window_left <= k + s <= q + window_right, with s = num_queries - num_keys".
    """

    def dense(seq_q, seq_kv):
        i, j = places(seq_q, seq_kv)
        moved = j + seq_q - seq_kv
        return (i - window_left <= moved) & (moved <= i + window_right)

    return dense


def lower_triangular_local(window_size):
    """xFormers' LowerTriangularFromBottomRightLocalAttentionMask: tril(diagonal=s) and triu(diagonal=s - window + 1) of
    ones, with s = num_keys - num_queries.
    """

    def dense(seq_q, seq_kv):
        ones, s = np.ones((seq_q, seq_kv), bool), seq_kv - seq_q
        return np.triu(np.tril(ones, s), s - window_size + 1)

    return dense


def block_diagonal(lengths, *, causal=False):
    """xFormers' BlockDiagonalMask.from_seqlens: "queries and keys are each divided into the same number of blocks, and
    queries in block i only attend to keys in block i"; its BlockDiagonalCausalMask is causal within each block.
    """

    def dense(seq_q, seq_kv):
        mask, first = np.zeros((seq_q, seq_kv), bool), 0
        for length in lengths:
            block = np.ones((length, length), bool)
            mask[first : first + length, first : first + length] = np.tril(block) if causal else block
            first += length
        assert seq_q == seq_kv == first
        return mask

    return dense


def block_diagonal_causal(lengths):
    """xFormers' BlockDiagonalCausalMask.from_seqlens, whose make_local_attention(window_size) is its
    BlockDiagonalCausalLocalAttentionMask: "the ith query in a block only attends to keys in its block with index
    greater than i - window_size and less than or equal to i".
    """
    dense = block_diagonal(lengths, causal=True)

    def make_local_attention(window_size):
        def local(seq_q, seq_kv):
            i, j = places(seq_q, seq_kv)
            return dense(seq_q, seq_kv) & (j > i - window_size)

        return local

    dense.make_local_attention = make_local_attention
    return dense


def flash(*, causal, window_size=(-1, -1)):
    """flash_attn_func: "query at position i will only attend to keys between [i + seqlen_k - seqlen_q - window_size[0],
    i + seqlen_k - seqlen_q + window_size[1]] inclusive", -1 for no limit; "if causal=True, the causal mask is aligned
    to the bottom right corner of the attention matrix".
    """
    left, right = window_size

    def dense(seq_q, seq_kv):
        i, j = places(seq_q, seq_kv)
        here = i + seq_kv - seq_q
        mask = np.ones((seq_q, seq_kv), bool)
        if left >= 0:
            mask &= j >= here - left
        if right >= 0:
            mask &= j <= here + right
        return mask & (j <= here) if causal else mask

    return dense


def natten_axis(length, kernel_size, dilation):
    """NATTEN along one axis, (length, length) bool: tokens whose places differ by a multiple of the dilation are a
    sequence of their own; in it a token attends to kernel_size of them around it, and near a border to the kernel_size
    nearest ones, so that no window is smaller.
    """
    mask = np.zeros((length, length), bool)
    for i in range(length):
        own = np.arange(i % dilation, length, dilation)
        start = np.clip(i // dilation - kernel_size // 2, 0, own.size - kernel_size)
        mask[i, own[start : start + kernel_size]] = True
    return mask


def natten_grid(height, width, kernel_size, dilation):
    """The same on a grid whose tokens are flattened in C order: both axes must be within."""
    rows, columns = (natten_axis(length, kernel_size, dilation) for length in (height, width))
    return np.kron(rows, columns)


def _attention(q, k, v, attn_bias):
    """Of arrays (batch, seq, heads, dim), as all three take them."""
    return reference.attention(q, k, v, attn_bias(q.shape[1], k.shape[1]), layout="bshd")


def _varlen(q, k, v, cu_seqlens_q, cu_seqlens_k, longest_q, longest_k, causal):
    """flash_attn_varlen_func: (total tokens, heads, dim); tokens cu_seqlens[i] to cu_seqlens[i + 1] are sequence i."""
    lengths = np.diff(cu_seqlens_q)
    assert np.array_equal(cu_seqlens_q, cu_seqlens_k)
    assert longest_q == longest_k == lengths.max()
    outs = [
        _attention(*(x[None, first : first + length] for x in (q, k, v)), flash(causal=causal))[0]
        for first, length in zip(cu_seqlens_q[:-1], lengths, strict=True)
    ]
    return np.concatenate(outs)


def _na2d(q, k, v, kernel_size, dilation):
    batch, height, width, heads, dim = q.shape
    flat = (x.reshape(batch, height * width, heads, dim) for x in (q, k, v))
    return _attention(*flat, lambda *_: natten_grid(height, width, kernel_size, dilation)).reshape(q.shape)


def stand_ins():
    """Modules by name, for sys.modules, with what the pages take of them."""
    bias = SimpleNamespace(
        LowerTriangularMask=lambda: lower_triangular,
        LowerTriangularFromBottomRightMask=lambda: lower_triangular_from_bottom_right,
        LocalAttentionFromBottomRightMask=local_from_bottom_right,
        LowerTriangularFromBottomRightLocalAttentionMask=lower_triangular_local,
        BlockDiagonalMask=SimpleNamespace(from_seqlens=block_diagonal),
        BlockDiagonalCausalMask=SimpleNamespace(from_seqlens=block_diagonal_causal),
    )
    fmha = SimpleNamespace(attn_bias=bias, memory_efficient_attention=_attention)
    return {
        "xformers": SimpleNamespace(ops=SimpleNamespace(fmha=fmha)),
        "xformers.ops": SimpleNamespace(fmha=fmha),
        "flash_attn": SimpleNamespace(
            flash_attn_func=lambda q, k, v, **options: _attention(q, k, v, flash(**options)),
            flash_attn_varlen_func=_varlen,
        ),
        "natten": SimpleNamespace(na2d=_na2d),
    }
