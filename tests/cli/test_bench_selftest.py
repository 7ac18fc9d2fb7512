"""bench and selftest: what they count, and how they fail."""

import re
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba.cli import fuzzing, peers, selftest
from splat_numba.cli.measure import Timed
from splat_numba.executors.gpu.executor import CudaExecutor
from splat_numba.gen.plans.machine import CPU
from splat_numba.gen.shown.kinds import KINDS
from splat_numba.integrations.flex_masks import mask_mod
from splat_numba.testing import Agreement, Problem, patterns
from tests.cli.command_run import SMALL, run, table_rows
from tests.emulator.emulated_gpu import emulated, forget_emulated
from tests.runtime.fake_cuda import FakeDriver, Status, forget, install


def test_bench_prints_times_versions_and_the_ratio_to_the_fastest_peer(capsys, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda _: None)  # as without torch
    status, out, err = run(capsys, "bench", "--pattern", "window(16)", *SMALL)
    assert (status, err) == (0, "")
    for text in (f"NumPy {np.__version__}", "threads each", "torch is not installed", "pip install"):
        assert text in out
    density, ours, numpy_time, speed_up, compiling = table_rows(out)["window(16)"]
    assert density == "12.5%"
    times = [float(text.removesuffix(" ms")) for text in (ours, numpy_time)]
    assert float(speed_up.rstrip("x")) == pytest.approx(times[1] / times[0], rel=0.1)
    assert compiling == "cached" or compiling.endswith(" s")
    assert re.search(r"Medians of 3 to 15 calls; the middle half of a cell's calls spans at most \d+% of it\.", out)


def test_the_spread_of_a_time_is_that_of_its_middle_half():
    found = Timed.of([4.0, 1.0, 2.0, 3.0, 100.0])
    assert (found.seconds, found.spread) == (3.0, 2.0 / 3.0)
    assert Timed.of([2.0, 2.0, 2.0]).spread == 0


def test_bench_refuses_a_peer_that_is_not_here(capsys, monkeypatch):
    monkeypatch.setattr(peers, "find_spec", lambda _: None)
    status, _, err = run(capsys, "bench", "--pattern", "window(16)", *SMALL, "--peer", "Flex")
    assert status == 2
    assert err.startswith("error: --peer Flex does not run here. torch is not installed")


def test_dense_numpy_is_attention():
    operands = Problem(70, 70, splat.full(), batch=2, heads_q=3, head_dim=8).arrays()
    got = peers._numpy_dense(splat.full(), None, operands).call()
    np.testing.assert_allclose(got, splat.reference.attention(*operands, np.ones((70, 70), bool)), rtol=1e-4, atol=1e-5)


@given(st.data(), st.integers(1, 40), st.integers(1, 40))
def test_masks_for_flex_attention_keep_the_pattern_or_are_looked_up(data, seq_q, seq_kv):
    pattern = data.draw(patterns(seq_q, seq_kv))
    if "documents" in repr(pattern):
        return  # needs torch
    keeps = mask_mod(pattern, seq_q, seq_kv)
    if keeps is None:
        assert any(name in repr(pattern) for name in ("neighborhood", "random_blocks", "global_tokens(("))
        return
    got = keeps(0, 0, np.arange(seq_q)[:, None], np.arange(seq_kv))
    wanted = splat.ACSR.from_pattern(pattern, seq_q, seq_kv).to_dense()
    np.testing.assert_array_equal(np.broadcast_to(got, wanted.shape), wanted)


def test_selftest_counts_cases_and_kernels(capsys):
    status, out, err = run(capsys, "selftest", "--seconds", "1", "--backend", "cpu")
    assert (status, err) == (0, "")
    words = out.split()
    assert words[0] == "cpu:"
    assert int(words[1]) >= 1
    assert int(words[words.index("kernels") - 1]) >= 1
    assert "of what its tolerance allows" in " ".join(words)
    met = re.search(r"cpu: (\d+) of (\d+) kinds of pass were met; not met: ([^.]+)\.", " ".join(words))
    assert int(met[2]) - int(met[1]) == len(met[3].split(", "))


def test_selftest_says_when_every_kind_was_met():
    assert selftest.kinds_text("cpu", {*KINDS[CPU]}) == "cpu: 16 of 16 kinds of pass were met."


def test_selftest_runs_on_a_gpu(capsys, monkeypatch):
    emulated(monkeypatch)
    assert selftest.present_backends() == ["cpu", "cuda"]
    monkeypatch.setattr(CudaExecutor, "emulated", True)  # so that cases are as short
    status, out, err = run(capsys, "selftest", "--seconds", "4", "--backend", "cuda")
    forget_emulated()
    assert (status, err) == (0, "")
    words = out.split()
    assert words[0] == "cuda:"
    assert int(words[1]) >= 1
    assert int(words[words.index("kernels") - 1]) >= 1


def test_selftest_of_a_backend_that_is_not_here_says_so(capsys, monkeypatch):
    install(monkeypatch, FakeDriver(status=Status.CUDA_ERROR_NO_DEVICE))
    assert selftest.present_backends() == ["cpu"]
    status, out, err = run(capsys, "selftest", "--backend", "cuda")
    forget()
    assert (status, out) == (2, "")
    assert err.startswith("error: --backend cuda wanted an NVIDIA GPU, got")


def test_selftest_prints_the_smallest_failing_case_and_how_to_repeat_it(capsys, monkeypatch):
    def planted(problem, _backend, **_):
        if problem.seq_kv >= 5 and problem.seq_q >= 3:
            raise AssertionError(f"out[0]: wanted 1, got 2\nin {problem!r}, backend='cpu'")
        return Agreement(0.0, 0.25)

    monkeypatch.setattr(fuzzing, "check_attention", planted)
    monkeypatch.setattr(fuzzing, "_note_kernels", lambda *_: None)
    status, out, _ = run(capsys, "selftest", "--seconds", "20", "--backend", "cpu")
    assert status == 1
    assert "worst error is 25.0% of what its tolerance allows" in " ".join(out.split())
    failed = out.partition("FAILED\n")[2]
    assert failed.startswith("AssertionError: out[0]: wanted 1, got 2\n\nThe smallest failing case; repeat it with:\n")
    assert failed.count("Problem(") == 1
    line = next(line for line in failed.splitlines() if line.startswith("check_attention("))
    found = []
    space = {**vars(splat), "np": np, "Problem": Problem, "check_attention": lambda problem, _: found.append(problem)}
    space |= {"array": np.array, "from_csr": splat.from_csr}
    exec(line, space)  # noqa: S102 - what users are told to do
    assert found[0].seq_kv == 5  # the smallest that fails; equal lengths count as simpler than 3 and 5
    assert found[0].seq_q in {3, 5}
    # One head, with its axes or without: where Hypothesis ends changes with the numbers that it finds in our code.
    assert (found[0].batch or 1, found[0].heads_q or 1) == (1, 1)


def test_selftest_writes_a_long_failing_case_to_a_file(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr(selftest.tempfile, "tempdir", str(tmp_path))
    tally = fuzzing.Tally(until=0.0)
    tally.fail(Problem(40, 40, np.eye(40, dtype=bool)), AssertionError("out: wanted 1, got 2"))
    assert selftest._report("cpu", tally, 1.0) == 1
    out = capsys.readouterr().out
    assert max(map(len, out.splitlines())) < 200
    (path,) = tmp_path.iterdir()
    assert f"python {path}" in out
    assert "check_attention(Problem(40, 40, np.array([[1, 0" in path.read_text()


def test_selftest_without_hypothesis_says_what_to_install(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "hypothesis", None)
    status, out, err = run(capsys, "selftest")
    assert (status, out) == (2, "")
    assert err == 'error: selftest needs Hypothesis. Run: pip install "splat-numba[selftest]"\n'
