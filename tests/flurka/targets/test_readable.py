"""Texts of flurka_numba's GPU stages are read as tiles: short functions, few levels, each with its docstring."""

import ast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flurka_numba.gpu.gradient_plan import gradient_plan, over_slots, projection_stage, takes_gradients, token_stage
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.stages import apply_traits
from flurka_numba.targets.simt.product import ProductTraits
from flurka_numba.targets.simt.product_shape import LARGE, MEDIUM, SMALL
from splat_numba.gen.plans.machine import Gpu
from tests.flurka.strategies import EVERY_KIND, dims
from tests.flurka.targets.gpu_texts import texts
from tests.flurka.targets.sm90.test_build import problem
from tests.gen.shape_of_text import unreadable
from tests.gen.test_source import free_names, functions
from tests.profiles import draws

MULTIPROCESSORS = Gpu().multiprocessors
TEXTS = texts()
DTYPES = ("float16", "bfloat16")


def check(text):
    """One text: readable, and complete."""
    source = text.render()
    assert unreadable(source) == []
    assert free_names(source) == set()
    found = functions(source)
    assert next(iter(found)) == text.entry.name
    names = [node.func for one in found.values() for node in ast.walk(one) if isinstance(node, ast.Call)]
    assert found.keys() == {text.entry.name} | {one.id for one in names if isinstance(one, ast.Name)} & found.keys()
    assert all(ast.get_docstring(one) for name, one in found.items() if name != text.entry.name)


@pytest.mark.parametrize("name", TEXTS)
def test_every_text_is_readable(name):
    check(TEXTS[name])


@st.composite
def problems(draw):
    """Of the stages for tensor cores."""
    method, phi = draw(st.sampled_from(EVERY_KIND))
    largest = draw(st.sampled_from([80, 256]))
    return problem(
        method=method, phi=phi, dtype=draw(st.sampled_from(DTYPES)), head_dim=draw(dims(largest)),
        value_dim=draw(dims(largest)), rows=draw(st.integers(1, 128)), ragged=draw(st.booleans()), batch=2,
        rank=draw(st.sampled_from([0, 1, 64, 100, 256, 600])) if method != "kernel" else 0,
        per_head_proj=draw(st.booleans()), shared_proj=draw(st.booleans()), heads=draw(st.sampled_from([1, 3, 16])),
        seq_q=draw(st.sampled_from([100, 65536])), seq_kv=draw(st.sampled_from([1, 1000, 65536])),
    )  # fmt: skip


def stages_of(one):
    """All of a problem's forward pass, and of its gradients where it has such."""
    if one.method == "low_rank" or apply_traits(one).fits:
        yield from forward_plan(one, MULTIPROCESSORS).stages
    if one.method == "low_rank" or isinstance(one.feature_map, str):
        return
    inner = one if one.method == "kernel" else over_slots(one)
    if not takes_gradients(inner) or (one.method == "flurka" and one.ragged):
        return
    yield from gradient_plan(inner, MULTIPROCESSORS, one if one.method == "flurka" else None).stages
    if one.method == "flurka" and one.rank:
        found = [stage(one, frozenset("kv"), MULTIPROCESSORS) for stage in (projection_stage, token_stage)]
        yield from (stage for stage, _ in filter(None, found))


@settings(max_examples=draws(6))
@given(problems())
def test_any_stage_is_readable(one):
    for stage in stages_of(one):
        check(stage.text)


@settings(max_examples=draws(4))
@given(*(st.sampled_from((*DTYPES, "float32")) for _ in range(3)), st.sampled_from([LARGE, MEDIUM, SMALL]))
def test_any_product_is_readable(a, b, result, tile):
    check(ProductTraits(a, b, result, *tile))
