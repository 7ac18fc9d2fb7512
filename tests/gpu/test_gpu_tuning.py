"""autotune=True on a GPU: it times, keeps the choice on disk, and results agree with the oracle."""

import pytest

import splat_numba as splat
from splat_numba.executors.gpu import tuning as gpu_tuning
from splat_numba.executors.gpu.tuning import tuned_plan
from splat_numba.testing import Problem, check_attention

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("mask", [splat.window(50), splat.dilated(9, 4)], ids=repr)
def test_a_tuned_call_is_right_and_its_choice_is_kept(mask, tmp_path, monkeypatch):
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(gpu_tuning, "MOST", 2)  # each takes seconds to compile
    tuned_plan.cache_clear()
    problem = Problem(200, 200, mask, "bfloat16", batch=1, heads_q=2, head_dim=64)
    check_attention(problem, backend="cuda", autotune=True)
    (file,) = tmp_path.glob("cache/*/measured_*.json")
    told = file.read_text()
    shape = {"seq_q": 200, "seq_kv": 200, "head_dim": 64, "batch": 1, "heads_q": 2, "dtype": "bfloat16"}
    tuned_plan.cache_clear()  # as another process has none
    kernel = splat.compile(mask, **shape, backend="cuda", autotune=True)
    assert file.read_text() == told
    assert "the least of 2 timed on" in kernel.explain()
    tuned_plan.cache_clear()
