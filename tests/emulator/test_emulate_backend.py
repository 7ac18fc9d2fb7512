"""backend="emulate": what users call to run and debug a GPU kernel's text without a GPU."""

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.errors import ArgumentTypeError, BackendError, CompileError, EmulationError
from splat_numba.testing import Problem, check_attention
from tests.emulator.test_emulated_attention import PROBLEMS

MASK = splat.window(40) | splat.sinks(3)


@pytest.mark.parametrize("problem", PROBLEMS[::2], ids=repr)
def test_results_agree_with_the_oracle(problem):
    check_attention(problem, backend="emulate")


def arrays(seq=200, dtype=np.float16):
    rng = np.random.default_rng(0)
    return [rng.standard_normal((1, 2, seq, 64)).astype(dtype) for _ in range(3)]


def compiled(seq=200, **options):
    sizes = {"seq_q": seq, "seq_kv": seq, "head_dim": 64, "heads_q": 2, "dtype": "float16"}
    return splat.compile(MASK, **sizes, backend="emulate", **options)


def test_a_kernel_serves_other_lengths_and_key_lengths():
    kernel = compiled()
    q, k, v = arrays(130)
    out = kernel(q, k, v, kv_lengths=[77])
    wanted = splat.reference.attention(q, k, v, splat.ACSR.from_pattern(MASK, 130, 130).to_dense(), kv_lengths=[77])
    assert np.abs(out - wanted).max() < 5e-3


def test_it_is_the_text_that_a_gpu_would_run():
    on_gpu = splat.compile(MASK, seq_q=200, seq_kv=200, head_dim=64, heads_q=2, dtype="float16", backend="cuda")
    assert compiled().source == on_gpu.source
    assert compiled().plan.explain() == on_gpu.plan.explain()


def test_an_edited_text_runs_and_a_fault_names_its_line(tmp_path):
    kernel = compiled()
    path = tmp_path / "edited.py"
    lines = kernel.source.splitlines()
    place = next(i for i, line in enumerate(lines) if "mbarrier_arrive(base + K_EMPTY" in line)
    lines[place] = lines[place].split("ptx.")[0] + "pass"
    path.write_text("\n".join(lines))
    with pytest.raises(EmulationError, match=r"deadlock: .* line \d+ of edited"):
        kernel.with_source(path)(*arrays())


def test_an_edited_text_without_the_kernel_is_refused(tmp_path):
    path = tmp_path / "edited.py"
    path.write_text("x = 1\n")
    with pytest.raises(
        CompileError, match=r"^path .*edited\.py: function attention wanted, which is what is called, got"
    ):
        compiled().with_source(path)


def test_out_is_written_in_place():
    q, k, v = arrays()
    out = np.full_like(q, np.nan)
    assert splat.attention(q, k, v, MASK, backend="emulate", out=out) is out
    assert not np.isnan(out).any()


def test_splat_emulate_stands_in_for_a_gpu(monkeypatch):
    monkeypatch.setenv("SPLAT_EMULATE", "1")
    q, k, v = arrays()
    out = splat.attention(q, k, v, MASK, backend="cuda")
    assert np.array_equal(out, splat.attention(q, k, v, MASK, backend="emulate"))


def test_what_it_refuses():
    with pytest.raises(ArgumentTypeError, match="float32"):
        splat.attention(*arrays(dtype=np.float32), MASK, backend="emulate", target="sm_90a")
    with pytest.raises(BackendError, match="target wanted as None, 'sm_90a', 'sm80' or 'simt'"):
        splat.attention(*arrays(), MASK, backend="emulate", target="sm_70")
    with pytest.raises(BackendError, match="got one for 'emulate'"):
        compiled().ptx()


def test_a_small_attention_takes_seconds():
    """256 x 256, head_dim 64, three groups of tiles in flight: the size that the emulator is for."""
    check_attention(Problem(256, 256, splat.causal(), "float16", batch=1, heads_q=1, head_dim=64), backend="emulate")
