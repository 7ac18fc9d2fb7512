"""Golden sources: the text of eight plans, kept in files that people read, and run.

After a change of the generator `python -m pytest tests/gen/test_golden.py --update-golden` writes them anew; read the
difference before it is committed. A golden that is missing is a failure.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from splat_numba.gen.targets.cpu.attention import attention_text, render_attention
from splat_numba.runtime.cpu.code import compile_text
from splat_numba.settings import current
from splat_numba.testing import Problem, check_attention
from tests.gen.golden_plans import GOLDEN, SEQ_KV, SEQ_Q, golden_plan
from tests.gen.golden_text import ADVICE, golden
from tests.gen.plan_run import run_plan

FOLDER = Path(__file__).parent / "golden"


@pytest.mark.parametrize("name", GOLDEN)
def test_the_source_is_the_golden_one(name, update_golden):
    text = render_attention(golden_plan(name))
    path = FOLDER / f"{name}.py"
    assert text == golden(path, text, update=update_golden), f"{path} differs. {ADVICE}"


def test_every_golden_file_has_its_plan():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(GOLDEN)


@pytest.mark.parametrize("name", GOLDEN)
def test_the_golden_source_compiles_and_agrees_with_the_oracle(name):
    """What the emulator of test_emulated cannot see: that Numba takes it, and what the instructions do."""
    plan = golden_plan(name)
    compiled = compile_text(attention_text(plan), plan.as_dict, current())
    assert compiled.source.text == (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    mask, dtype = GOLDEN[name]
    for seq_q, seq_kv in [(SEQ_Q, SEQ_KV), (33, 129)] if plan.closed else [(SEQ_Q, SEQ_KV)]:
        problem = Problem(seq_q, seq_kv, mask, dtype, batch=1, heads_q=2, heads_kv=1, head_dim=8)
        check_attention(problem, attention=run_plan(plan, compiled.functions))
