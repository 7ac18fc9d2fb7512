"""Gradients by name: a problem for every kind of mask, operand and option, for emulated and real GPUs alike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import splat_numba as splat
from splat_numba.gen.targets.gpu import gradient_kept
from splat_numba.gen.targets.gpu.gradient_kept import plan_kept
from splat_numba.testing import Problem


def _holed(seq_q, seq_kv):
    """A stored mask some of whose queries and keys are nobody's."""
    mask = np.random.default_rng(3).random((seq_q, seq_kv)) < 0.2
    mask[3:9] = mask[:, 20:31] = False
    return mask


WINDOW = splat.window(40, 3) | splat.sinks(2)
MASKS = [splat.window(9), splat.causal(), splat.strided(3), splat.window(9)]
CASES = {
    "no mask": Problem(130, 200, splat.full(), "bfloat16", 2, 2, head_dim=64),
    "causal": Problem(200, 200, splat.causal(), "float16", heads_q=2, head_dim=64),
    "two groups that skip": Problem(300, 300, WINDOW, "bfloat16", heads_q=2, head_dim=128),
    "grouped heads": Problem(200, 190, WINDOW, "float16", 2, 6, 2, head_dim=32, value_dim=48),
    "odd dims": Problem(150, 170, WINDOW, "float16", 2, 4, 2, head_dim=33, value_dim=17),
    "small dims": Problem(90, 70, WINDOW, "bfloat16", head_dim=1, value_dim=3),
    "large dims": Problem(130, 130, WINDOW, "bfloat16", head_dim=256, value_dim=256),
    "large keys": Problem(130, 130, WINDOW, "float16", head_dim=192, value_dim=64),
    "key lengths": Problem(200, 260, splat.causal(), "bfloat16", 3, 2, head_dim=64, kv_lengths=(0, 77, 260)),
    "key lengths, grouped": Problem(150, 150, WINDOW, "float16", 2, 2, 1, head_dim=64, kv_lengths=(150, 33)),
    "negative scale": Problem(200, 200, splat.causal(), "float16", heads_q=2, head_dim=64, scale=-0.3),
    "no scale": Problem(70, 70, splat.causal(), "bfloat16", head_dim=64, scale=0.0),
    "residue classes": Problem(330, 330, splat.dilated(20, 5), "float16", heads_q=2, head_dim=64),
    "strided keys": Problem(200, 330, splat.columns(6, 2), "float16", heads_q=2, head_dim=64),
    "several passes": Problem(389, 389, splat.sparse_transformer_strided(13), "bfloat16", 1, 4, 2, head_dim=64),
    "several passes, lengths": Problem(
        300, 300, splat.sparse_transformer_strided(13), "float16", 2, 2, head_dim=80, value_dim=72, kv_lengths=(300, 55)
    ),
    "grid": Problem(640, 640, splat.neighborhood((20, 32), 7), "float16", heads_q=2, head_dim=64),
    "a mask a head": Problem(130, 130, MASKS, "float16", batch=2, heads_q=4, heads_kv=2, head_dim=64),
    "a mask a head, lengths": Problem(
        130, 130, MASKS, "bfloat16", 1, 4, 1, head_dim=64, kv_lengths=(50,), layout="bshd"
    ),
    "queries and keys of nobody": Problem(100, 140, _holed(100, 140), "float16", heads_q=2, head_dim=64),
    "no keys": Problem(70, 0, splat.full(), "float16", heads_q=2, head_dim=64),
    "no queries": Problem(0, 70, splat.full(), "float16", heads_q=2, head_dim=64),
    "one axis less": Problem(90, 90, splat.causal(), "bfloat16", None, 2, head_dim=64, layout="bshd"),
    "two axes less": Problem(90, 90, splat.causal(), "bfloat16", head_dim=64),
}
# Cases in which slopes may be kept, with inputs that are frozen.
KEPT = {
    "two groups that skip": (), "grouped heads": (), "odd dims": ("k", "v"), "negative scale": (), "causal": ("v",),
    "residue classes": (), "a mask a head": ("k",), "queries and keys of nobody": (), "no keys": (),
    "two axes less": ("q",),
}  # fmt: skip


def keep_slopes(monkeypatch):
    """Have slopes kept wherever they can be, and heads take turns."""

    def one_head_at_a_time(*given):
        *others, keeping = given
        found = plan_kept(*others, replace(keeping, least_dim=0))
        return found if isinstance(found, str) else replace(found, heads_at_once=1)

    monkeypatch.setattr(gradient_kept, "faster", lambda *_: True)
    monkeypatch.setattr(gradient_kept, "plan_kept", one_head_at_a_time)
