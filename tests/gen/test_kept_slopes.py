"""Slopes that one pass keeps for another: who reads which image, which launches there are, and when they are chosen."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.arguments.masks import store_mask
from splat_numba.formats.geometry import geometry
from splat_numba.gen.boxes.kept_slopes import IMAGE_BYTES
from splat_numba.gen.boxes.passes import ALL, GROUP_ROWS, NONE
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.plans.machine import Gpu, gpu_of
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.schedules.tensor import Tensor, contiguous
from splat_numba.gen.targets.gpu import gradient_kept
from splat_numba.gen.targets.gpu.gradient_kept import Kept, TurnWork, plan_kept, seconds_in_turns, turns_of
from splat_numba.gen.targets.gpu.gradient_kernels import READ, WRITTEN
from splat_numba.gen.targets.gpu.rounding import ENTRY as ROUND
from splat_numba.gen.targets.gradients import HeadsPlan, backward_schedule
from splat_numba.gen.targets.sm80.backward.kept import KEEPING as SM80_KEEPING
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.gen.targets.sm90.backward.kept import KEEPING
from splat_numba.gen.targets.sm90.target import SM90
from splat_numba.testing import lengths, masks
from tests.gen.plan_cases import dense

GPU, LARGE = Gpu(), 8192


def kept_of(mask, seq_q, seq_kv, dim=128, keeping=KEEPING, gpu=GPU, **sizes):
    problem = Problem(seq_q, seq_kv, dim, dim, "bfloat16", **{"heads_q": 2, "heads_kv": 2, **sizes})
    transposed = geometry(store_mask(mask, seq_q, seq_kv), seq_q, seq_kv).transposed()
    return plan_kept(transposed, problem, gpu, Conditions(), keeping)


def images_read(one):
    """Of every lane of the reader (row, images as (view, c1, c2, number)), each group's as often as listed."""
    table, groups = one.table, one.traits.groups
    for rows, words in zip(table.rows.reshape(-1, groups, GROUP_ROWS), table.block, strict=True):
        pieces = table.piece[words[3] : words[4]]
        for group in range(groups):
            mine = pieces[(pieces[:, 4] >> 2 * group) & 3 == ALL]
            yield rows[group], [(*piece[:3], piece[5 + group]) for piece in mine.tolist()]


@settings(max_examples=60)
@given(st.data())
def test_every_image_is_read_once_by_the_block_that_has_its_queries(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    found = kept_of(
        mask, seq_q, seq_kv, data.draw(st.sampled_from([96, 128])), data.draw(st.sampled_from([KEEPING, SM80_KEEPING]))
    )
    if isinstance(found, str):
        return
    writer, reader = found.keys, found.queries
    groups = writer.traits.groups
    written, number = {}, 0  # image: (keys of its lanes, queries of its columns)
    for rows, words in zip(writer.table.rows.reshape(-1, groups, GROUP_ROWS), writer.table.block, strict=True):
        assert words[6] == number  # tiles of the blocks before
        for view, c1, c2, tiles, status, *_ in writer.table.piece[words[3] : words[4]].tolist():
            seen = writer.table.kv_views[view]
            for tile in range(tiles):
                at = c1 + GROUP_ROWS * tile + np.arange(GROUP_ROWS)
                queries = np.where(at < seen.inner, seen.offset + seen.inner_step * at + seen.outer_step * c2, -1)
                for group in range(groups):
                    if (status >> 2 * group) & 3 != NONE:
                        written[groups * number + group] = rows[group], queries
                number += 1
    assert writer.images == reader.images == groups * number
    met, visited = [], []
    for rows, images in images_read(reader):
        visited += rows[rows >= 0].tolist()
        for view, c1, c2, image in images:
            keys, queries = written[image]
            np.testing.assert_array_equal(queries, rows)
            seen, at = reader.table.kv_views[view], c1 + np.arange(GROUP_ROWS)
            inside = at < seen.inner
            np.testing.assert_array_equal(
                keys[inside], (seen.offset + seen.inner_step * at + seen.outer_step * c2)[inside]
            )
            assert (keys[~inside] < 0).all()
            met.append(image)
    assert sorted(met) == sorted(written)
    assert sorted(visited) == list(range(seq_q))
    pairs = np.zeros((seq_q + 1, seq_kv + 1), np.bool_)
    for keys, queries in written.values():
        pairs[np.ix_(queries, keys)] = True
    assert not (dense(mask, seq_q, seq_kv) & ~pairs[:-1, :-1]).any()


def schedule_of(plans, heads, seq, dim=128, wanted=None, heads_kv=None):
    """Of one batch entry, by the heads of every plan."""

    def tensor(name, count):
        sizes = (1, count, seq, dim)
        return Tensor(sizes, contiguous(sizes, dim), "bfloat16", name)

    tensors = {name: tensor(name, heads) for name in ("q", "out", "dout", "dq")}
    tensors |= {name: tensor(name, heads_kv or heads) for name in ("k", "v", "dk", "dv")}
    tensors["lse"] = Tensor((1, heads, seq, 1), (4 * heads * seq, 4 * seq, 4, 4), "float32", "lse")
    return backward_schedule(SM90, plans, tensors, wanted or Wanted(), 0.1, GPU.multiprocessors)


def plan_of(mask, seq, dim=128, heads=2, heads_kv=None):
    problem = Problem(seq, seq, dim, dim, "bfloat16", 1, heads, heads_kv or heads)
    return SM90.plan_backward(geometry(store_mask(mask, seq, seq), seq, seq), problem, GPU, Conditions())


def kinds(schedule):
    """What kernels of gradients do with slopes, and for how many heads."""
    texts = [(step.text.traits[0], step.numbers) for step in schedule.steps if "heads_count" in step.numbers]
    return [(one.kept, one.wanted, numbers["heads_count"]) for one, numbers in texts]


def test_key_heads_take_turns_and_memory_is_that_of_a_turn(monkeypatch):
    monkeypatch.setattr(gradient_kept, "faster", lambda *_: True)
    found = replace(plan_of(splat.window(512), LARGE, 128, 8, 4), heads_at_once=3)
    schedule = schedule_of([HeadsPlan(found, tuple(range(8)))], 8, LARGE, 128, heads_kv=4)
    both = ("dk", "dv")
    assert kinds(schedule) == [(WRITTEN, both, 3), (READ, ("dq",), 6), (WRITTEN, both, 1), (READ, ("dq",), 2)]
    kept = 6 * found.keys[0].images * IMAGE_BYTES
    assert kept <= schedule.scratch <= kept + 16 * 8 * LARGE + 4096  # and what every query has


def test_frozen_inputs_leave_out_products_and_images(monkeypatch):
    monkeypatch.setattr(gradient_kept, "faster", lambda *_: True)
    plans = [HeadsPlan(plan_of(splat.window(512), LARGE), (0, 1))]
    assert kinds(schedule_of(plans, 2, LARGE, wanted=Wanted(k=False, v=False))) == [
        (WRITTEN, (), 2), (READ, ("dq",), 2),
    ]  # fmt: skip
    assert kinds(schedule_of(plans, 2, LARGE, wanted=Wanted(q=False))) == [("", ("dk", "dv"), 2)]


def test_a_head_with_one_pass_is_not_rounded_with_those_that_have_several():
    """Once all heads were, from sums that nobody had written: half the rows of the window's were garbage."""
    i, seq = np.arange(4096), 4096
    apart = i[:, None] - i[None, :]
    mask = (abs(apart) <= 6) | ((apart % 64 == 0) & (i[:, None] % 64 < 32))
    plans = [HeadsPlan(plan_of(one, seq), (head,)) for head, one in enumerate((mask, splat.window(9)))]
    assert [len(one.planned.queries) for one in plans] == [2, 1]
    schedule = schedule_of(plans, 2, seq)
    rounds = [step for step in schedule.steps if step.text.entry.name == ROUND]
    assert [(*step.pointers["result"], step.numbers["heads"]) for step in rounds] == [
        ("dq", 0, 1), ("dk", 0, 1), ("dv", 0, 1),
    ]  # fmt: skip


REFUSED = {
    "several passes": (splat.sparse_transformer_strided(128), {"dim": 128}, "keys are taken in several passes"),
    "a grid": (splat.neighborhood((64, 128), 13), {"dim": 128}, "a query is in several tiles"),
    "large dims": (splat.window(128), {"dim": 256}, "a kernel each makes dk and dv"),
    "small dims": (splat.window(128), {"dim": 64}, "no gain was measured below head_dim 96"),
    "too many pairs": (splat.full(), {"batch": 64, "dim": 128}, "8.0 GiB a key head, more than 1.0 GiB"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_reason_is_given_where_slopes_are_not_kept(name):
    mask, sizes, reason = REFUSED[name]
    found = kept_of(mask, LARGE, LARGE, **sizes)
    assert isinstance(found, str)
    assert found.startswith(reason)


def test_the_plan_says_which_design_it_takes_and_what_both_cost():
    large = plan_of(splat.window(512), LARGE, 128, 16)
    assert large.keys_first
    assert "chosen      gradients: one kernel that keeps dS for the other (five products a tile, " in large.explain()
    assert "refused   two kernels that both make the weights again: predicted" in large.explain()
    small = plan_of(splat.window(512), LARGE, 64, 16)
    assert not small.keys_first
    assert "refused   one kernel that keeps dS for the other: no gain was measured below head_dim 96" in small.explain()


def test_a_warps_products_keep_slopes_where_the_rates_of_memory_are_known():
    found = SM80.plan_backward(
        geometry(store_mask(splat.full(), LARGE, LARGE), LARGE, LARGE),
        Problem(LARGE, LARGE, 64, 64, "bfloat16", 2, 16, 16), GPU, Conditions(),
    )  # fmt: skip
    assert found.keys_first
    assert "five products a tile, 1.0 GiB of memory, 4 key heads at a time; predicted" in found.explain()
    reason = kept_of(splat.full(), LARGE, LARGE, 64, SM80_KEEPING, gpu_of((8, 0)))
    assert reason == "how fast memory is beside products is not known of a GPU of compute capability 8.0"


def test_heads_take_turns_where_that_costs_little():
    alike = np.full(128, 18, np.int32)  # window(512) at 8192 tokens, two batch entries

    def turns(tiles, heads, most, seconds, resident=1):
        return turns_of([TurnWork(tiles, seconds, resident)], heads, most, 132)

    assert turns(alike, 16, 100, 700e-6) == 2
    assert turns(alike, 16, 100, 100e-6) == 1
    assert turns(alike, 16, 4, 700e-6) == 4
    assert turns(alike, 16, 100, 1.0) == 4  # fewer heads would leave multiprocessors idle
    longest = np.array([128, 128, *[9] * 126], np.int32)  # whose time every turn takes
    assert turns(longest, 16, 100, 700e-6) == 1
    assert turns(np.zeros(0, np.int32), 1, 1, 1.0) == 1
    causal = np.arange(2, 129, 2, np.int32).repeat(2)  # 64 row blocks of 128 queries, two batch entries
    assert turns(causal, 16, 100, 1.0, 2) == 4
    assert turns(causal, 16, 2, 1.0, 2) == 8
    assert seconds_in_turns([TurnWork(causal, 2.4e-3, 2)], 16, 8, 132) > 1.4 * 2.4e-3  # of which 1.8 was measured


def test_dims_of_one_kept_plan():
    found = kept_of(splat.window(512), LARGE, LARGE, 128, heads_q=16, heads_kv=16, batch=2)
    assert isinstance(found, Kept)
    assert found.nbytes == 2 * found.heads_at_once * found.keys.images * IMAGE_BYTES <= 1 << 30
