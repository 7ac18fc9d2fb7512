"""The texts of the GPU's stages compiled for sm_90a, without a GPU: no spills, no warnings, registers as planned."""

import ast

import pytest

from flurka_numba.feature_maps import RANDOM_MAPS, resolve
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.stages import shares_of_state
from flurka_numba.gpu.tilings import choose_tiling
from flurka_numba.problem import Problem
from splat_numba.gen.plans.machine import Gpu
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import current
from tests.flurka.strategies import MAPS

GPU = Gpu()


def problem(method="flurka", rank=256, head_dim=64, value_dim=64, phi="elu", rows=64, **changes):
    feature_map, eps = resolve(MAPS[phi], None)
    features = rows * RANDOM_MAPS[phi].per_row if phi in RANDOM_MAPS else head_dim
    values = {
        "method": method, "batch": 1, "heads": 16, "seq_q": 65536, "seq_kv": 65536, "dtype": "bfloat16",
        "per_head_proj": False, "shared_proj": False, "ragged": False, "scale": 1.0, **changes,
    }  # fmt: skip
    return Problem(
        rank=rank, head_dim=head_dim, value_dim=value_dim, features=features, feature_map=feature_map, eps=eps, **values
    )


PROBLEMS = {
    "usual": problem(),
    "float16, ragged": problem(dtype="float16", ragged=True, batch=2),
    "float16, no slots": problem(dtype="float16", rank=0, head_dim=16, value_dim=16, seq_kv=64),
    "float16, softplus, wide": problem(dtype="float16", phi="softplus", head_dim=128, value_dim=128),
    "kernel": problem("kernel"),
    "kernel, ragged": problem("kernel", ragged=True, batch=2, head_dim=80, value_dim=20),
    "queries of x": problem("kernel", seq_kv=256, model_dim=1024),
    "queries of x, narrow heads": problem(
        "kernel", head_dim=32, value_dim=32, phi="relu", dtype="float16", model_dim=512
    ),
    "queries of x, wide heads": problem("kernel", head_dim=128, value_dim=128, phi="softplus", model_dim=2048),
    "queries of x, wide heads, corners": problem("kernel", head_dim=128, value_dim=128, phi="corners", model_dim=2048),
    "low rank": problem("low_rank"),
    "rank 128": problem(rank=128),
    "rank 64": problem(rank=64, head_dim=80, value_dim=48),
    "rank 512, wide": problem(rank=512, head_dim=128, value_dim=128),
    "widest": problem(head_dim=256, value_dim=256, per_head_proj=True, heads=4),
    "widest values": problem(head_dim=64, value_dim=256, rank=64),
    "softplus": problem(phi="softplus"),
    "corners": problem(phi="corners"),
    "favor": problem(phi="favor"),
    "rfa": problem(phi="rfa"),
    "favor, kernel, ragged": problem("kernel", phi="favor", rows=100, head_dim=72, value_dim=20, ragged=True, batch=2),
    "rfa, kernel, odd": problem("kernel", phi="rfa", rows=33, head_dim=33, value_dim=33, dtype="float16"),
    "favor, most rows": problem(phi="favor", rows=256, head_dim=128, value_dim=128),
    "favor, most rows, wide values": problem(phi="favor", rows=256, value_dim=256, rank=64),
    "favor, widest": problem(phi="favor", rows=128, head_dim=256, value_dim=256, dtype="float16"),
    "rfa, most rows": problem(phi="rfa", rows=128, head_dim=128, rank=64),
    "rfa, most rows, wide values": problem(phi="rfa", rows=128, value_dim=256, rank=64),
    "rfa, wide heads": problem(phi="rfa", rows=20, head_dim=256, value_dim=20),
}


@pytest.mark.usefixtures("cuda_compiler")
@pytest.mark.parametrize("one", PROBLEMS.values(), ids=PROBLEMS)
def test_every_stage_compiles_without_spills_and_warnings(one):
    from splat_numba.runtime.cuda.build import build

    for stage in forward_plan(one, GPU.multiprocessors).stages:
        report = build(KernelSource.of(stage.text.name, stage.text.render()), stage.text.entry, current()).report
        assert (report.spill_bytes, report.warnings) == (0, ()), (stage.text.name, report.log)
        assert report.shared_bytes <= GPU.shared_bytes
        assert report.registers * stage.text.entry.threads * stage.text.entry.blocks <= GPU.registers


@pytest.mark.parametrize("one", PROBLEMS.values(), ids=PROBLEMS)
def test_texts_are_pure_and_take_the_parameters_of_their_entries(one):
    first, second = forward_plan(one, GPU.multiprocessors), forward_plan(one, GPU.multiprocessors)
    for stage, again in zip(first.stages, second.stages, strict=True):
        text = stage.text.render()
        assert text == again.text.render()
        function = next(node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef))
        assert function.name == stage.text.entry.name
        assert [one.arg for one in function.args.args] == [name for name, _ in stage.text.entry.parameters]


def test_lengths_and_ranks_do_not_change_texts_of_stage_3():
    long, short = (forward_plan(problem(seq_q=n, rank=rank), 132) for n, rank in ((65536, 256), (100, 64)))
    assert long.stages[-1].text.render() == short.stages[-1].text.render()


def shape(tiling):
    return tiling.groups, tiling.tile_spans, tiling.splits


def tiling(**options):
    return choose_tiling(problem(**options), 132)


@pytest.mark.parametrize(
    ("sizes", "chosen"),
    [
        ({"batch": 4, "heads": 16, "seq_kv": 8192}, (2, 2, 1)),  # 128 of 132 multiprocessors, and no parts to add up
        ({"heads": 16, "seq_kv": 65536}, (2, 4, 8)),
        ({"heads": 16, "seq_kv": 8192}, (2, 2, 4)),
    ],
)
def test_tilings_of_the_sizes_that_the_model_is_fitted_to(sizes, chosen):
    assert shape(tiling(rank=256, **{"batch": 1, **sizes})) == chosen


@pytest.mark.parametrize("rank", [1, 64, 65, 128, 192, 256, 320, 512, 576])
def test_tilings_cover_slots_and_columns(rank):
    found = tiling(rank=rank, heads=3, head_dim=100)
    assert 64 * found.groups * found.row_blocks >= rank
    assert found.tile_spans * found.pairs_k >= 3 * 2
    assert found.tiles == found.tiles_k + found.row_blocks * found.pairs_v * problem().batch


def test_spans_of_a_tile_are_of_one_head_where_heads_have_their_own_projections():
    assert tiling(heads=1, value_dim=64).tile_spans == 1
    assert tiling(per_head_proj=True).tile_spans == 1
    assert tiling(per_head_proj=True, head_dim=256, value_dim=128).tile_spans in (1, 2)


def test_a_few_steps_are_not_split_further():
    assert tiling(seq_kv=3).splits == 1
    assert tiling(batch=1, heads=1, seq_kv=192).splits <= 3


def test_shares_of_a_state():
    assert shares_of_state(16, 256, 32, 132) == 8
    assert shares_of_state(16, 65536, 128, 132) == 16
    assert shares_of_state(500, 65536, 128, 132) == 1
    assert shares_of_state(1, 0, 128, 132) == 1
