"""The generated text: complete, deterministic, free of what a plan does not need; nothing is compiled here."""

import ast
import builtins
import symtable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splat_numba.formats import patterns as p
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.plans.backward import Wanted
from splat_numba.gen.targets.cpu.attention import attention_text, render_attention
from splat_numba.gen.targets.cpu.backward import backward_text
from splat_numba.runtime.cpu.code import source_of
from splat_numba.testing import lengths, masks
from tests.gen.golden_plans import GOLDEN, golden_plan
from tests.gen.plan_cases import plan_of, table_plan_of
from tests.gen.shape_of_text import unreadable

DTYPES = ("float16", "bfloat16", "float32", "float64")


def free_names(text: str) -> set[str]:
    """Names that the text uses and neither defines, imports nor finds among Python's own."""
    top = symtable.symtable(text, "kernel", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    defined |= {child.get_name() for child in top.get_children()}
    used, tables = set(), [top]
    while tables:
        table = tables.pop()
        tables += table.get_children()
        used |= {symbol.get_name() for symbol in table.get_symbols() if symbol.is_global() and symbol.is_referenced()}
    return used - defined - set(dir(builtins))


def functions(text: str) -> dict[str, ast.FunctionDef]:
    return {node.name: node for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}


def called(node: ast.AST) -> set[str]:
    return {one.func.id for one in ast.walk(node) if isinstance(one, ast.Call) and isinstance(one.func, ast.Name)}


def integers(text: str) -> set[int]:
    return {
        node.value for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Constant) and type(node.value) is int
    }


def unbound_locals(text: str) -> list[str]:
    """Names that a function reads above every line of its text that binds them."""
    found = []
    for function in functions(text).values():
        names = [node for node in ast.walk(function) if isinstance(node, ast.Name)]
        local = {node.id for node in names if isinstance(node.ctx, ast.Store)}
        bound = {argument.arg for argument in function.args.args}
        # the right-hand side of a statement is read before its left-hand side is bound
        for node in sorted(names, key=lambda name: (name.lineno, isinstance(name.ctx, ast.Store))):
            if isinstance(node.ctx, ast.Store):
                bound.add(node.id)
            elif node.id in local - bound:
                found.append(f"{function.name}: {node.id} in line {node.lineno}")
    return found


@settings(max_examples=60)
@given(st.data())
def test_any_text_is_complete_deterministic_and_readable(data):
    seq_q, seq_kv = data.draw(lengths()), data.draw(lengths())
    mask = data.draw(masks(seq_q, seq_kv))
    dtype, dim = data.draw(st.sampled_from(DTYPES)), data.draw(st.sampled_from([1, 7, 8, 16, 33]))
    plan = plan_of(mask, seq_q, seq_kv, dtype, dim)
    text = render_attention(plan)
    assert text == render_attention(plan_of(mask, seq_q, seq_kv, dtype, dim))
    assert free_names(text) == set()
    assert unbound_locals(text) == []
    assert unreadable(text) == []
    assert text.endswith("\n")
    assert not text.endswith("\n\n")
    assert all(line == line.rstrip() for line in text.splitlines())
    assert {f"pass_{number}" for number in range(len(plan.passes))} <= set(functions(text))


@pytest.mark.parametrize("name", GOLDEN)
def test_every_function_is_documented_and_used(name):
    """A function without a caller would be read for nothing."""
    tree = functions(render_attention(golden_plan(name)))
    used = set().union(*(called(node) for node in tree.values()))
    for function, node in tree.items():
        assert ast.get_docstring(node), function
        assert function in used or function.startswith("pass_"), f"{function} is never called"


def test_the_docstring_names_mask_shape_and_type():
    text = render_attention(plan_of(p.window(40, 0) | p.sinks(4), 96, 96, "float16"))
    docstring = ast.get_docstring(ast.parse(text))
    assert "generated for window | sinks." in docstring
    assert "explain() shows: left, right, n." in docstring
    assert "head_dim 8, value_dim 8, float16; any length; target cpu" in docstring


def test_the_file_name_tells_the_kernel():
    name = source_of(attention_text(plan_of(p.window(40, 0) | p.sinks(4), 96, 96, "float16"))).name
    assert name.startswith("attention_window_sinks_d8_float16_")
    assert source_of(attention_text(plan_of(np.eye(9, dtype=bool), 9, 9))).name.startswith(
        "attention_table_d8_float32_"
    )


def test_a_closed_form_has_neither_its_numbers_in_the_text_nor_lengths():
    plan = plan_of(p.window(41, 13), 1000, 1003)
    text = render_attention(plan)
    assert "# columns from row - left to row + right + 1\n" in text
    assert not {41, 13, 14, 1000, 1003} & integers(text)
    assert plan.passes[0].numbers == {"left": 41, "right": 13}
    assert "; left = 41, right = 13" in plan.explain()


FORMS = {
    "windows": [p.window(width) for width in (64, 100, 128, 200, 256)],
    "windows of two sides": [p.window(70, 0), p.window(100, 8), p.window(130, 40)],
    "strided": [p.strided(step) for step in (2, 4, 5, 8, 16, 32)],
    "dilated": [p.dilated(64, step) for step in range(2, 10)],
    "dilated far": [p.dilated(256, 8), p.dilated(256, 16), p.dilated(128, 32)],
    "blocked": [p.blocked(size, 1) for size in (100, 128, 150)],
    "columns": [p.columns(7, 2), p.columns(8, 5), p.columns(9, 3)],
    "prefix": [p.prefix(n) for n in (5, 100, 130)],
    "at the end": [p.window(width, 0).align_end() for width in (70, 100, 128)],
    "window | sinks": [p.window(70, 0) | p.sinks(4), p.window(128, 0) | p.sinks(9), p.window(90, 0) | p.sinks(90)],
    "longformer": [p.longformer(70, 4), p.longformer(128, 9), p.longformer(100, 30)],
    "window | strided": [p.window(70) | p.strided(64), p.window(100) | p.strided(70), p.window(128) | p.strided(80)],
    "blocked | window": [p.blocked(70) | p.window(64), p.blocked(80) | p.window(70), p.blocked(90) | p.window(75)],
    "two windows": [p.window(64, 0) | p.window(5, 100), p.window(80, 0) | p.window(9, 70)],
    "strided | strided": [p.strided(4) | p.strided(6), p.strided(6) | p.strided(9), p.strided(12) | p.strided(18)],
    "strided & strided": [p.strided(4) & p.strided(6), p.strided(10) & p.strided(15)],
    "columns & columns": [p.columns(4, 1) & p.columns(6, 3), p.columns(6, 2) & p.columns(9, 5)],
    "dilated | dilated": [p.dilated(32, step) | p.dilated(64, step // 2 * 3) for step in (4, 6, 8)],
    "window & strided": [p.window(200) & p.strided(step) for step in (4, 8, 16)],
    "sparse transformer": [p.sparse_transformer_strided(step) for step in (64, 80, 100)],
}


@pytest.mark.parametrize("masks", FORMS.values(), ids=FORMS)
def test_masks_of_one_form_share_one_text_forward_and_back(masks):
    plans = [plan_of(mask, 2048, 2048, "float32", 64) for mask in masks]
    assert len({attention_text(plan).source for plan in plans}) == 1
    assert len({backward_text(plan, Wanted()).source for plan in plans}) == 1
    given = [tuple(tuple(one.numbers.values()) for one in plan.passes) for plan in plans]
    assert len(set(given)) == len(masks)


def test_no_function_changes_the_numbers_that_it_is_given():
    for of_a_form in FORMS.values():
        plan = plan_of(of_a_form[0], 1024, 1024, "float32", 64)
        for text in (attention_text(plan).source, backward_text(plan, Wanted()).source):
            for name, function in functions(text).items():
                if name.startswith("pass_"):
                    numbers = {argument.arg for argument in function.args.args} & {*plan.passes[int(name[5:])].numbers}
                    stored = {
                        one.id for one in ast.walk(function) if isinstance(one, ast.Name) and type(one.ctx) is ast.Store
                    }
                    assert numbers == {*plan.passes[int(name[5:])].numbers}
                    assert not numbers & stored


def test_a_closed_form_has_one_text_for_lengths_near_each_other():
    texts = {render_attention(plan_of(p.longformer(8, 2), n, m)) for n in (65, 500, 1024) for m in (65, 777)}
    assert len(texts) == 1


def test_table_kernels_of_different_masks_share_one_text():
    rng = np.random.default_rng(1)
    dense = [rng.random((64, 64)) < density for density in (0.02, 0.3, 0.9)]
    plans = [plan_of(mask, 64, 64) for mask in [*dense, np.ones((64, 64), bool), np.eye(64, dtype=bool)]]
    plans += [table_plan_of(p.window(size), 64, 64) for size in (3, 30)]
    tiles = {tuple((one.tile_q, one.resumes) for one in plan.passes) for plan in plans}
    assert len({render_attention(plan) for plan in plans}) == len(tiles) <= 2


def test_what_a_plan_does_not_need_is_not_in_its_text():
    closed = render_attention(plan_of(p.full(), 256, 256))
    assert "bits_" not in closed
    assert not any(name.startswith(("soften_bits", "gather_", "resume_")) for name in functions(closed))
    table = render_attention(table_plan_of(p.causal(), 256, 256))
    assert "soften_inside" not in table
    assert "attend_interval" not in table
    assert not any("float64" in line or "to_float16(" in line for line in closed.splitlines())


def test_a_resuming_pass_takes_up_the_state_and_the_first_one_resets_it():
    plan = plan_of(p.sparse_transformer_strided(128), 4096, 4096)
    tree = functions(render_attention(plan))
    for number, one in enumerate(plan.passes):
        calls = called(tree[f"pass_{number}"])
        assert any(name.startswith("resume_") for name in calls) == one.resumes
        assert any(name.startswith("reset_") for name in calls) == (not one.resumes)


def test_keys_of_a_stored_mask_come_from_tables_only():
    """So the text is the same for all masks: nothing of the mask may be in it."""
    stored = ACSR.from_pattern(p.window(37, 0), 91, 93)
    text = render_attention(plan_of(stored, 91, 93))
    assert not {37, 91, 93, stored.nnz} & integers(text)


class TestSourceWriter:
    def test_blocks_indent_and_end(self):
        out = SourceWriter()
        with out.block("if x"):
            out.line("y = 1")
            with out.block("for z in y"):
                out.line("pass")
        out.line("w = 2")
        assert out.text() == "if x:\n    y = 1\n    for z in y:\n        pass\nw = 2\n"

    def test_lines_are_dedented_and_keep_their_own_nesting(self):
        out = SourceWriter()
        with out.suite():
            out.lines(
                """
                if x:
                    y = 1
                z = 2
                """
            )
        assert out.text() == "    if x:\n        y = 1\n    z = 2\n"

    def test_a_function_has_two_blank_lines_decorator_and_docstring(self):
        out = SourceWriter()
        out.line("a = 1")
        with out.function("@njit", "f(x)", "Twice x."):
            out.line("return 2 * x")
        assert out.text() == 'a = 1\n\n\n@njit\ndef f(x):\n    """Twice x."""\n    return 2 * x\n'
