"""Masks to and from FlexAttention's BlockMask: the same pairs, and the same attention."""

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError
from tests.integrations.torch.ways import torch

flex = pytest.importorskip("torch.nn.attention.flex_attention")
modules = pytest.importorskip("splat_numba.integrations.torch")
STORED = np.random.default_rng(1).random((50, 70)) < 0.3
MASKS = {
    "window": splat.window(9, 3) | splat.sinks(4),
    "full": splat.full(),
    "aligned": splat.causal().align_end(),
    "looked up": splat.random_blocks(16, 1, 5),
    "stored": splat.from_dense(STORED),
}


def dense(mask):
    return (mask if isinstance(mask, splat.ACSR) else splat.ACSR.from_pattern(mask, 50, 70)).to_dense()


@pytest.mark.parametrize("name", MASKS)
def test_masks_go_round(name):
    block_mask = modules.to_block_mask(MASKS[name], 50, 70, block_size=16)
    np.testing.assert_array_equal(modules.from_block_mask(block_mask).to_dense(), dense(MASKS[name]))


@pytest.mark.filterwarnings("ignore")  # of PyTorch: it is slow, not compiled
@pytest.mark.parametrize("name", MASKS)
def test_flex_attention_takes_them(name):
    q, k, v = (torch.randn(1, 1, n, 16) for n in (50, 70, 70))
    found = flex.flex_attention(q, k, v, block_mask=modules.to_block_mask(MASKS[name], 50, 70, block_size=16))
    kept = dense(MASKS[name]).any(axis=1)
    torch.testing.assert_close(found[:, :, kept], splat.attention(q, k, v, MASKS[name])[:, :, kept])


def test_create_block_mask_s_are_read():
    block_mask = flex.create_block_mask(lambda _b, _h, i, j: (i - j) % 3 == 0, None, None, 300, 200, device="cpu")
    found = modules.from_block_mask(block_mask)
    np.testing.assert_array_equal(found.to_dense(), splat.ACSR.from_pattern(splat.strided(3), 300, 200).to_dense())


def test_heads_may_differ_and_batch_entries_may_not():
    masks = [splat.causal(), splat.window(3), splat.causal()]
    found = modules.from_block_mask(modules.to_block_mask(masks, 50, 50, block_size=16))
    assert found == [splat.ACSR.from_pattern(mask, 50, 50) for mask in masks]
    block_mask = flex.create_block_mask(lambda b, _h, i, j: i - j >= b, 2, None, 32, 32, device="cpu", BLOCK_SIZE=16)
    with pytest.raises(ArgumentError) as caught:
        modules.from_block_mask(block_mask)
    assert str(caught.value) == (
        "block_mask wanted with the same pairs for all batch entries, got 2 that differ. Give each entry's with its "
        "own attention call, or lengths as kv_lengths."
    )
    with pytest.raises(ArgumentTypeError, match=r"^block_mask wanted as a BlockMask of torch.nn.attention"):
        modules.from_block_mask(splat.causal())


def test_blocks_that_keep_all_are_full():
    block_mask = modules.to_block_mask(splat.causal(), 64, 64, block_size=16)
    assert block_mask.full_kv_num_blocks.tolist() == [[[0, 1, 2, 3]]]
    assert block_mask.kv_num_blocks.tolist() == [[[1, 1, 1, 1]]]
