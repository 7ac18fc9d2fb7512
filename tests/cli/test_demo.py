"""demo: the numbers in its table, its exit status, its picture file."""

import builtins
import sys

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.cli import check, demo, plotting
from splat_numba.cli.cases import chosen_cases
from splat_numba.kernel import Kernel
from splat_numba.testing import Problem
from tests.cli.command_run import SMALL, run, table_rows

PATTERNS = ["--pattern", "window(16)", "--pattern", "strided(4)"]


def test_the_table_says_what_the_plan_and_the_oracle_say(capsys, monkeypatch):
    results = []
    monkeypatch.setattr(demo, "table_of", lambda *a, make=demo.table_of: results.extend(a[1]) or make(*a))
    status, out, err = run(capsys, "demo", *PATTERNS, *SMALL)
    assert (status, err) == (0, "")
    assert "attention with seq 256, head_dim 16, heads 2, float32" in out
    assert [name for name in demo.COLUMNS if name not in out] == []
    assert "\x1b" not in out  # no colours where nobody sees them
    rows = table_rows(out)
    assert list(rows) == ["window(16)", "strided(4)"]
    for result in results:
        pattern = splat.parse(result.case.label)
        plan = splat.plan(pattern, seq_q=256, seq_kv=256, head_dim=16, heads_q=2, dtype="float32")
        density, bands, tiles, fill, time, dense_time, speed_up, error = rows[result.case.label]
        kept = splat.ACSR.from_pattern(pattern, 256, 256).density
        assert float(density.rstrip("%")) == pytest.approx(100 * kept, abs=0.051)
        assert (int(bands), int(tiles)) == (plan.bands, plan.cost.tiles)
        assert fill == f"{plan.cost.fill:.0%}"
        assert float(time.removesuffix(" ms")) == pytest.approx(1e3 * result.seconds, rel=0.02, abs=0.006)
        assert float(dense_time.removesuffix(" ms")) == pytest.approx(1e3 * result.dense_seconds, rel=0.02, abs=0.006)
        assert float(speed_up.rstrip("x")) == pytest.approx(result.dense_seconds / result.seconds, abs=0.051)
        assert 0 < float(error) < 1e-5
        assert result.checked.used < 1
    assert rows["window(16)"][1] == "1"
    assert rows["strided(4)"][:2] == ["25.0%", "4"]


def test_a_wrong_result_is_named_and_gives_exit_status_1(capsys, monkeypatch):
    true_call = Kernel.__call__

    def wrong_call(self, *arrays, **options):
        result = true_call(self, *arrays, **options)
        if "strided" in self.plan.mask and isinstance(result, tuple):
            result[0][0, 1, 255, 3] += 1e-3
        return result

    monkeypatch.setattr(Kernel, "__call__", wrong_call)
    status, out, err = run(capsys, "demo", *PATTERNS, *SMALL)
    assert status == 1
    assert err.startswith("error: strided(4) exceeds its tolerance: out[0, 1, 255][3]: wanted ")
    assert len(err.splitlines()) == 1
    assert table_rows(out)["strided(4)"][-1] == "1.0e-03 !"
    assert not table_rows(out)["window(16)"][-1].endswith("!")


def test_a_lost_key_is_found_by_the_log_sum_exp():
    """A wrong lse is a failure even where out is right."""
    pattern = splat.causal()
    operands = Problem(64, 64, pattern, batch=1, heads_q=1).arrays()
    mask = splat.ACSR.from_pattern(pattern, 64, 64)
    out, lse = splat.reference.attention(*operands, mask, return_lse=True)
    assert check.check_rows(operands, mask, out, lse).failure is None
    lse[0, 0, 63] += 1e-3
    assert check.check_rows(operands, mask, out, lse).failure.startswith("lse[0, 0, 63][0]: wanted ")


@pytest.mark.parametrize("seq", [1, 2, 3, 31, 4096])
def test_checked_rows_are_distinct_and_hold_both_ends(seq):
    rows = check.sample_rows(seq)
    assert np.unique(rows).size == rows.size <= 32
    assert (rows[0], rows[-1]) == (0, seq - 1)


@pytest.mark.parametrize("seq", [1, 100, 256, 4096, 5000])
def test_the_usual_patterns_fit_every_length(seq):
    cases = chosen_cases(None, seq)
    assert len({case.label for case in cases}) == len(cases) == 8
    for case in cases:
        assert splat.ACSR.from_pattern(case.pattern, seq, seq).nnz


def test_a_plot_is_written(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    path = tmp_path / "demo.png"
    status, out, _ = run(capsys, "demo", "--pattern", "window(16)", *SMALL, "--plot", str(path))
    assert status == 0
    assert f"Wrote {path}." in out
    assert path.read_bytes().startswith(b"\x89PNG")


def test_a_plot_without_matplotlib_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setattr(plotting, "has_matplotlib", lambda: False)
    status, out, err = run(capsys, "demo", "--plot", "demo.png")
    assert (status, out) == (2, "")
    assert err == 'error: --plot needs matplotlib. Run: pip install "splat-numba[plot]"\n'


@pytest.mark.parametrize(
    ("name", "message"),
    [("demo.abc", "wanted a file ending in one of"), ("no/folder/demo.png", "wanted a file in a folder that exists")],
)
def test_a_plot_that_cannot_be_written_is_refused_before_anything_runs(capsys, tmp_path, name, message):
    pytest.importorskip("matplotlib")
    status, out, err = run(capsys, "demo", "--plot", str(tmp_path / name))
    assert (status, out) == (2, "")
    assert err.startswith(f"error: --plot {message}")


def test_bfloat16_without_ml_dtypes_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "ml_dtypes", None)
    true_import = builtins.__import__

    def no_ml_dtypes(name, *rest):
        if name == "ml_dtypes":
            raise ModuleNotFoundError("No module named 'ml_dtypes'", name="ml_dtypes")
        return true_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_ml_dtypes)
    status, _, err = run(capsys, "demo", "--pattern", "window(16)", *SMALL, "--dtype", "bfloat16")
    assert status == 2
    assert err == "error: --dtype bfloat16 needs ml_dtypes. Run: pip install ml_dtypes\n"
