"""Masks of transformers as parts keep exactly the pairs that transformers' own bool masks keep."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from tests.integrations.transformers.models import checks, masks, torch

theirs = pytest.importorskip("transformers.masking_utils")


def dense(found):
    """The pairs that parts keep, (batch, seq_q, seq_kv)."""
    batch, _, seq_q, seq_kv = found.shape
    kept = np.zeros((batch, seq_q, seq_kv), bool)
    for part in found.parts:
        (first, stop), (start, end) = part.rows, part.keys
        mask = part.mask
        stored = splat.ACSR.from_pattern(mask, stop - first, end - start) if isinstance(mask, splat.Pattern) else mask
        for at, entry in enumerate(range(*part.entries)):
            length = end - start if part.kv_lengths is None else part.kv_lengths[at]
            kept[entry, first:stop, start : start + length] |= stored.to_dense()[:, :length]
    return kept


def functions(draw, batch):
    """A mask function of transformers' own, or one that is not known by name."""
    size = draw(st.integers(1, 9))
    documents = torch.tensor(
        [sorted(draw(st.lists(st.integers(0, 3), min_size=40, max_size=40))) for _ in range(batch)]
    )
    positions = torch.stack([torch.cat([torch.arange(n) for n in torch.bincount(one)]) for one in documents])
    causal, window = theirs.causal_mask_function, theirs.sliding_window_causal_mask_function(size)
    inner = draw(st.sampled_from([causal, window]))
    packed = theirs.and_masks(
        theirs.remap_positions_for_packed_sequence(inner, positions), theirs.packed_sequence_mask_function(documents)
    )
    groups = torch.tensor(draw(st.lists(st.integers(-1, 1), min_size=40, max_size=40)))
    choices = [
        causal,
        window,
        theirs.bidirectional_mask_function,
        theirs.sliding_window_bidirectional_mask_function(size),
        theirs.sliding_window_overlay(size),  # has no name of its own: evaluated
        theirs.chunked_causal_mask_function(
            size, torch.tensor(draw(st.lists(st.integers(0, 5), min_size=batch, max_size=batch)))
        ),
        theirs.or_masks(causal, theirs.blockwise_overlay(groups.expand(batch, -1))),
        theirs.and_masks(causal, lambda _b, _h, q_idx, kv_idx: (q_idx + kv_idx) % size != 0),
        packed,
    ]
    return draw(st.sampled_from(choices))


@st.composite
def asked(draw):
    """Arguments of a mask interface. Lookups by index hold 40 tokens."""
    batch, seq_q, seq_kv = draw(st.integers(1, 3)), draw(st.integers(1, 12)), draw(st.integers(1, 16))
    aligned = draw(st.booleans())
    kv_offset = draw(st.integers(0, 5))
    q_offset = max(0, kv_offset + seq_kv - seq_q) if aligned else draw(st.integers(0, 20))
    padding = None
    if draw(st.booleans()):
        width = draw(st.integers(kv_offset + 1, kv_offset + seq_kv))
        ranges = [sorted(draw(st.tuples(st.integers(0, width), st.integers(0, width)))) for _ in range(batch)]
        padding = torch.zeros(batch, width, dtype=torch.bool)
        for row, (start, stop) in zip(padding, ranges, strict=True):
            row[start:stop] = True
        if draw(st.booleans()):
            padding[0, draw(st.integers(0, width - 1))] ^= True
    return {
        "batch_size": batch, "q_length": seq_q, "kv_length": seq_kv, "q_offset": q_offset, "kv_offset": kv_offset,
        "mask_function": functions(draw, batch), "attention_mask": padding,
    }  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(asked())
@example(
    {
        "batch_size": 1, "q_length": 4, "kv_length": 9, "q_offset": 3, "kv_offset": 0, "attention_mask": None,
        "mask_function": theirs.sliding_window_causal_mask_function(3),
    }  # a static cache: keys in the future
)  # fmt: skip
def test_the_same_pairs(arguments):
    wanted = theirs.sdpa_mask(**arguments, allow_is_causal_skip=False)[:, 0].numpy()
    found = dense(masks.splat_mask(**arguments))
    differs = (wanted != found).any(-1)
    # Queries that stand before their entry's tokens are padding: none of their keys is kept, whatever theirs does.
    padding = arguments["attention_mask"]
    for entry, row in zip(*np.nonzero(differs), strict=True):
        before = padding is not None and not padding[entry, : arguments["q_offset"] + row + 1].any()
        assert before, (entry, row)
        assert not found[entry, row].any()


def kept_masks(**arguments):
    given = {"batch_size": 1, "q_length": 6, "kv_length": 6, "mask_function": theirs.causal_mask_function} | arguments
    return [
        (part.entries, part.rows, part.keys, part.mask, part.kv_lengths) for part in masks.splat_mask(**given).parts
    ]


def test_what_is_recognised():
    causal = splat.causal().align_end()
    assert kept_masks() == [((0, 1), (0, 6), (0, 6), causal, None)]
    # A static cache: keys in the future are not read.
    assert kept_masks(q_length=2, kv_length=9, q_offset=3) == [((0, 1), (0, 2), (0, 5), causal, None)]
    window = theirs.sliding_window_causal_mask_function(3)
    assert kept_masks(mask_function=window) == [((0, 1), (0, 6), (0, 6), splat.window(2, 0).align_end(), None)]
    both = theirs.sliding_window_bidirectional_mask_function(3)
    assert kept_masks(mask_function=both) == [((0, 1), (0, 6), (0, 6), splat.window(3).align_end(), None)]
    chunked = theirs.chunked_causal_mask_function(4, torch.zeros(1, dtype=torch.int64))
    chunks = (splat.causal() & splat.blocked(4)).align_end()
    (found,) = kept_masks(mask_function=chunked)
    assert splat.ACSR.from_pattern(found[3], 6, 6) == splat.ACSR.from_pattern(chunks, 6, 6)
    assert isinstance(found[3], splat.Pattern)


def test_padding_at_the_right_is_lengths_and_at_the_left_a_call_an_entry():
    causal = splat.causal().align_end()
    right = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 0, 0, 0, 0]])
    assert kept_masks(batch_size=2, attention_mask=right) == [((0, 2), (0, 6), (0, 6), causal, (6, 2))]
    left = torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0]])
    assert kept_masks(batch_size=4, attention_mask=left) == [
        ((0, 2), (2, 6), (2, 6), causal, None),
        ((2, 3), (1, 6), (1, 6), causal, None),
    ]


def test_one_query_is_a_range_of_keys():
    window = theirs.sliding_window_causal_mask_function(3)
    found = kept_masks(q_length=1, kv_length=9, q_offset=6, mask_function=window)
    assert found == [((0, 1), (0, 1), (4, 7), splat.full(), None)]


@pytest.mark.parametrize("wrong", [{"left": 4}, {"left": None}, {"causal": False, "right": 3}])
def test_a_wrong_guess_is_found_out(wrong, monkeypatch):
    """As where a later version of transformers means another thing by a name."""
    window = theirs.sliding_window_causal_mask_function(4)
    guess = masks.terms_of(window)
    assert guess is not None
    monkeypatch.setattr(masks, "terms_of", lambda _function: replace(guess, **wrong))
    found = masks.splat_mask(batch_size=1, q_length=30, kv_length=30, mask_function=window)
    assert [type(part.mask) for part in found.parts] == [splat.ACSR]
    wanted = theirs.sdpa_mask(1, 30, 30, mask_function=window, allow_is_causal_skip=False)
    assert np.array_equal(dense(found), wanted[:, 0].numpy())


def is_stored(**arguments):
    """Whether a mask was evaluated into ACSRs, which are what transformers itself says."""
    found = masks.splat_mask(batch_size=1, **arguments)
    wanted = theirs.sdpa_mask(1, **arguments, allow_is_causal_skip=False)
    assert np.array_equal(dense(found), wanted[:, 0].numpy())
    return [type(part.mask) for part in found.parts] == [splat.ACSR]


def differing_at(row, key, function):
    """A mask function that keeps another pair, or one less, and is known by the same name."""

    def inner_mask(batch_idx, head_idx, q_idx, kv_idx):
        return function(batch_idx, head_idx, q_idx, kv_idx) ^ ((q_idx == row) & (kv_idx == key))

    inner_mask.__module__, inner_mask.__qualname__ = function.__module__, function.__qualname__
    return inner_mask


@pytest.mark.parametrize("place", [(1234, 1233), (1234, 1235), (0, 1999), (1999, 0), (700, 700)], ids=str)
def test_a_function_that_differs_in_one_pair_is_found_out(place):
    causal = theirs.causal_mask_function
    assert not is_stored(q_length=2000, kv_length=2000, mask_function=causal)
    other = differing_at(*place, causal)
    assert masks.terms_of(other) == masks.terms_of(causal)
    assert is_stored(q_length=2000, kv_length=2000, mask_function=other)
    assert not is_stored(q_length=2000, kv_length=2000, mask_function=causal)


@pytest.mark.parametrize("place", [(400, 320), (400, 20), (0, 749)], ids=str)
def test_documents_that_differ_in_one_pair_are_found_out(place, monkeypatch):
    documents = torch.repeat_interleave(torch.arange(3), torch.tensor([300, 200, 250]))[None]
    packed = theirs.and_masks(theirs.causal_mask_function, theirs.packed_sequence_mask_function(documents))
    given = {"q_length": 750, "kv_length": 750}
    assert not is_stored(**given, mask_function=packed)
    guess = masks.terms_of(packed)
    monkeypatch.setattr(masks, "terms_of", lambda _function: guess)
    assert is_stored(**given, mask_function=differing_at(*place, packed))


def test_what_is_known_of_one_function_is_not_believed_of_another(monkeypatch):
    """The same code with other numbers in its closure, under the guess that was right for the first."""
    first = theirs.sliding_window_causal_mask_function(8)
    guess = masks.terms_of(first)
    given = {"q_length": 60, "kv_length": 60}
    assert not is_stored(**given, mask_function=first)
    monkeypatch.setattr(masks, "terms_of", lambda _function: guess)
    assert not is_stored(**given, mask_function=theirs.sliding_window_causal_mask_function(8))
    assert is_stored(**given, mask_function=theirs.sliding_window_causal_mask_function(9))


def test_a_function_is_compared_once(monkeypatch):
    checks._known.clear()
    calls = []
    kept = masks.Asked.kept
    monkeypatch.setattr(masks.Asked, "kept", lambda *given: calls.append(given[1:]) or kept(*given))
    window = theirs.sliding_window_causal_mask_function
    for length in (900, 700, 1000, 1024):  # a square of 1,024 holds all of them
        assert not is_stored(q_length=length, kv_length=length, mask_function=window(8))
    assert len(calls) == 1
    assert not is_stored(q_length=300, kv_length=1000, q_offset=700, mask_function=window(8))
    assert len(calls) == 1


def test_entries_that_differ_are_compared_each():
    def inner_mask(batch_idx, _head, q_idx, kv_idx):
        return (kv_idx <= q_idx) & ((batch_idx != 1) | (q_idx != 17))

    inner_mask.__module__ = theirs.__name__
    inner_mask.__qualname__ = "causal_mask_function"
    given = {"batch_size": 3, "q_length": 40, "kv_length": 40, "mask_function": inner_mask}
    found = masks.splat_mask(**given)
    assert np.array_equal(dense(found), theirs.sdpa_mask(**given, allow_is_causal_skip=False)[:, 0].numpy())


def test_functions_of_single_indices_are_mapped():
    table = torch.rand(40, 40, generator=torch.Generator().manual_seed(0)) < 0.5

    def looked_up(_batch, _head, q_idx, kv_idx):
        return table[q_idx, kv_idx]

    mask = theirs.or_masks(theirs.causal_mask_function, looked_up)
    given = {"batch_size": 2, "q_length": 7, "kv_length": 7, "mask_function": mask, "use_vmap": True}
    assert np.array_equal(
        dense(masks.splat_mask(**given)), theirs.sdpa_mask(**given, allow_is_causal_skip=False)[:, 0].numpy()
    )
