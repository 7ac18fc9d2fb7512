"""The text of the Hopper kernel: complete, deterministic, free of what its traits do not need; nothing is compiled."""

from __future__ import annotations

import ast
import re
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings

from flurka_numba.gpu.gradient_plan import gradient_plan
from flurka_numba.gpu.plan import forward_plan
from splat_numba.arguments.masks import describe, store_mask
from splat_numba.formats import patterns as p
from splat_numba.formats.geometry import geometry
from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.instructions import INSTRUCTIONS
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.targets.sm90.attention import ENTRY, attention_entry, render_attention
from splat_numba.gen.targets.sm90.backward.text import render_gradients
from splat_numba.gen.targets.sm90.schedule import attention_text
from splat_numba.gen.targets.sm90.shape import shared_layout
from splat_numba.gen.targets.sm90.target import SM90
from splat_numba.runtime.cuda.code import source_of
from tests.flurka.targets.sm90.test_build import PROBLEMS, problem
from tests.gen.shape_of_text import unreadable
from tests.gen.sm90_traits import GOLDEN, GOLDEN_GRADIENTS, traits
from tests.gen.test_source import called, free_names, functions

HERE = Path(__file__).parent
EXAMPLES = 500 if settings.get_current_profile_name() == "explore" else 30
FAMILIES = {"release_registers", "claim_registers", "matrix_product", "shared_address"}  # made by factories
BASE = Traits(
    80, 72, "float16", 2, 128, 2, 1, partial=True, skips=True, resumes=True, hands_on=True, ragged=True, negate=True
)


def flurka_instructions():
    """What the texts of flurka_numba use."""
    stages = [stage for one in PROBLEMS.values() for stage in forward_plan(one, 132).stages]
    for dtype in ("float16", "bfloat16"):
        stages += gradient_plan(problem("kernel", dtype=dtype), 132).stages
    return set().union(*(instructions_in(stage.text.render()) for stage in stages))


def instructions_in(text):
    return set(re.findall(r"\bptx\.(\w+)", text))


def names_read(text):
    return {
        node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
    }


def ptx_calls(text):
    return [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) == "ptx"
    ]


@settings(max_examples=EXAMPLES)
@given(traits())
def test_any_text_is_complete_deterministic_and_readable(one):
    text = render_attention(one)
    assert text == render_attention(replace(one))
    found = functions(text)
    assert found.keys() == {ENTRY} | set().union(*map(called, found.values())) & found.keys()
    assert unreadable(text) == []
    entry = found[ENTRY]
    assert tuple(argument.arg for argument in entry.args.args) == tuple(
        name for name, _ in attention_entry(one).parameters
    )
    assert free_names(text) == set()
    assert ast.get_docstring(ast.parse(text))
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert all(line == line.rstrip() for line in text.splitlines())


@settings(max_examples=EXAMPLES)
@given(traits())
def test_any_text_calls_instructions_that_exist_with_the_operands_they_have(one):
    text = render_attention(one)
    known = {instruction.name: instruction for instruction in INSTRUCTIONS}
    assert instructions_in(text) <= set(known) | FAMILIES
    for call in ptx_calls(text):
        if call.func.attr not in FAMILIES:
            assert len(call.args) == len(known[call.func.attr].operands), f"{call.func.attr} in line {call.lineno}"
            assert not call.keywords
    own = functions(text)
    for call in (node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Name) and call.func.id in own:
            assert len(call.args) == len(own[call.func.id].args.args), f"{call.func.id} in line {call.lineno}"


def attention_instructions():
    """What attention's texts use, with every option."""
    kinds = [
        replace(BASE, dtype=dtype, value_dim=dim, partial=full, ragged=full)
        for dtype in ("float16", "bfloat16")
        for dim in (17, 64)
        for full in (True, False)
    ]
    return set().union(*(instructions_in(render_attention(one)) for one in kinds))


def test_every_instruction_is_used_by_some_text():
    """One without a user would be kept up for nothing. Other targets' texts are their golden ones."""
    gradients = set().union(*(instructions_in(render_gradients(one)) for one in GOLDEN_GRADIENTS.values()))
    golden = [path for folder in ("golden_simt", "golden_sm80") for path in (HERE / folder).glob("*.py")]
    others = set().union(*(instructions_in(path.read_text(encoding="utf-8")) for path in golden))
    used = attention_instructions() | gradients | flurka_instructions() | others
    assert {instruction.name for instruction in INSTRUCTIONS} - used == set()


@settings(max_examples=EXAMPLES)
@given(traits())
def test_what_the_traits_do_not_need_is_not_in_the_text(one):
    text = render_attention(one)
    used, read = instructions_in(text), names_read(text)
    assert ("bulk_copy" in used) == one.partial
    assert ("mask_base" in read) == one.partial
    assert ("kept" in read) == (one.skips or one.ragged)
    assert ("kv_lengths" in read) == ("views" in read) == ("CLEARED" in read) == one.ragged
    assert ("fence_shared" in used) == ("store_shared_word" in used) == one.ragged
    assert ("load_state" in used) == ("load_pair" in used) == one.resumes
    assert (f"unpack_{one.dtype}" in used) == one.keeps_rest
    assert ("score[i] = -score[i]" in text) == one.negate
    assert ("load_shared_word" in used) == (one.partial or one.skips or one.ragged)
    other = {"float16": "bfloat16", "bfloat16": "float16"}[one.dtype]
    assert not re.search(rf"(?<!b){other}" if other == "float16" else other, text)
    assert ("shuffle_xor_word" in used) == (one.value_dim >= 32)


OF_FLOAT32 = {"precision", "rests"}


@pytest.mark.parametrize("name", [field.name for field in fields(Traits) if field.name not in OF_FLOAT32])
def test_every_trait_changes_the_text(name):
    """Else two texts would be compiled where one serves."""
    other = {
        "head_dim": 96, "value_dim": 64, "dtype": "bfloat16", "groups": 1, "tile_kv": 64, "stages": 3,
        "blocks_per_multiprocessor": 2,
    }  # fmt: skip
    base = replace(BASE, groups=1, skips=False) if name == "blocks_per_multiprocessor" else BASE
    if name == "skips":  # key lengths make groups skip anyway
        base = replace(BASE, ragged=False)
    changed = replace(base, **{name: other.get(name, not getattr(base, name))})
    assert render_attention(base) != render_attention(changed)


def passes(mask, length, *, dim=64):
    stored = store_mask(mask, length, length)
    problem = Problem(length, length, dim, dim, "bfloat16", 1, 8, 8)
    return SM90.plan(geometry(stored, length, length), problem, Gpu(), describe(stored), Conditions()).passes


def test_masks_of_equal_traits_share_one_text():
    rng = np.random.default_rng(0)
    many = [p.causal(), p.window(40, 3), p.blocked(100, 1), rng.random((777, 777)) < 0.3, rng.random((777, 777)) < 0.9]
    found = [one for mask in many for one in passes(mask, 777)]
    texts = {one.traits: source_of(attention_text(one.traits)) for one in found}
    assert len(texts) < len(found)
    assert len({source.name for source in texts.values()}) == len(texts)


def test_nothing_of_mask_or_lengths_is_in_the_text():
    (one,) = passes(p.window(3571, 1733), 7919)
    assert not re.search(r"\b(3571|1733|7919)\b", render_attention(one.traits))


def test_the_file_name_tells_shape_and_type():
    assert source_of(attention_text(GOLDEN["masked"])).name.startswith("attention_sm_90a_d128_bfloat16_128x128_")
    assert source_of(attention_text(GOLDEN["plain"])).name.startswith("attention_sm_90a_d64_float16_64x128_")


def test_the_docstring_names_shape_and_type():
    docstring = ast.get_docstring(ast.parse(render_attention(GOLDEN["ragged"])))
    assert "head_dim 80, value_dim 72, bfloat16; 64 queries x 80 keys a tile" in docstring


@settings(max_examples=EXAMPLES)
@given(traits())
def test_places_in_shared_memory_are_apart_and_aligned(one):
    layout = shared_layout(one)
    starts = [
        layout.q, layout.k, layout.v, layout.mask, layout.tile_info, layout.item_info, layout.q_full, layout.q_empty,
        layout.k_full, layout.k_empty, layout.v_full, layout.v_empty, layout.cleared, layout.end,
    ]  # fmt: skip
    assert starts == sorted(starts)
    assert layout.k - layout.q in (layout.q_bytes, 2 * layout.q_bytes)
    assert layout.v - layout.k == one.stages * layout.k_bytes
    assert layout.mask - layout.v == one.stages * layout.v_bytes
    assert layout.tile_info - layout.mask == one.stages * layout.mask_bytes
    for tile in (layout.q, layout.k, layout.v, layout.q_bytes, layout.k_bytes, layout.v_bytes):
        assert tile % 1024 == 0
    for place in (layout.mask, layout.mask_bytes, layout.tile_info, layout.item_info):
        assert place % 16 == 0
    for barrier in starts[6:]:
        assert barrier % 8 == 0
