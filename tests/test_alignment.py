"""Queries that look like the last tokens under a mask that takes them for the first ones: one warning a pattern."""

import warnings

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.arguments.alignment import looks_back, warn_unaligned

pytestmark = pytest.mark.filterwarnings("error::splat_numba.AlignmentWarning")
SIZES = {"seq_kv": 8, "head_dim": 4, "dtype": "float32"}


@pytest.fixture(autouse=True)
def fresh():
    warn_unaligned.cache_clear()


@pytest.mark.parametrize(
    "text",
    [
        "causal()",
        "prefix(3)",
        "window(4, 0)",
        "blocked(4, 1)",
        "window(4, 0) | sinks(2)",
        "causal() & strided(2)",
        "longformer(4, 2) & causal()",
        "sparse_transformer_fixed(4, 1)",
        "causal() | full().align_end()",
    ],
)
def test_causal_masks_look_back(text):
    assert looks_back(splat.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "full()",
        "causal().align_end()",
        "(window(4, 0) | sinks(2)).align_end()",
        "window(4)",
        "window(4, 1)",
        "window(0)",
        "window(0, 4)",
        "dilated(4, 2)",
        "strided(4)",
        "columns(4, 0)",
        "blocked(4)",
        "blocked(4, 1, 1)",
        "sinks(3)",
        "longformer(4, 2)",
        "bigbird(4)",
        "global_tokens((1, 2))",
        "random_blocks(4, 2, 0)",
    ],
)
def test_others_do_not(text):
    assert not looks_back(splat.parse(text))


def test_the_warning_says_what_to_write_and_whose_call_it_is():
    with pytest.warns(splat.AlignmentWarning) as caught:
        splat.plan(splat.causal(), seq_q=1, **SIZES)
    (warning,) = caught
    assert str(warning.message) == (
        "mask causal() has fewer queries than keys, and takes query 0 for token 0. If the queries are the last tokens, "
        "as in decoding, write (mask).align_end(); if not, filter splat_numba.AlignmentWarning."
    )
    assert warning.filename == __file__


def test_it_comes_once_a_pattern():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for mask in (splat.causal(), splat.causal(), splat.window(3, 0), splat.causal()):
            splat.plan(mask, seq_q=1, **SIZES)
    assert len(caught) == 2


@pytest.mark.parametrize("mask", [splat.causal().align_end(), splat.full(), splat.window(3), np.ones((1, 8), bool)])
def test_masks_that_are_meant_so_are_taken_in_silence(mask):
    splat.plan(mask, seq_q=1, **SIZES)


@pytest.mark.parametrize("seq_q", [8, 9])
def test_as_many_queries_as_keys_are_no_decoding(seq_q):
    splat.plan(splat.causal(), seq_q=seq_q, **SIZES)


def test_a_kernel_that_serves_every_length_warns_too():
    kernel = splat.compile(splat.causal(), seq_q=8, **SIZES)
    q, k = np.zeros((1, 4), np.float32), np.zeros((8, 4), np.float32)
    with pytest.raises(splat.AlignmentWarning, match=r"^mask causal\(\) has fewer queries than keys"):
        kernel(q, k, k)
