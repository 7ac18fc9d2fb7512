"""explain, source, doctor, and what happens to bad input."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

import splat_numba as splat
from splat_numba.cli import doctor
from splat_numba.cli.console import break_label, milliseconds, percent, print_words
from tests.cli.command_run import SMALL, run
from tests.runtime.fake_cuda import FakeDriver, Status, forget, install

PATTERN = "window(64) | sinks(4)"


def test_explain_draws_the_mask_and_prints_the_plan(capsys):
    status, out, err = run(capsys, "explain", PATTERN, "--seq", "512", "--seq-kv", "768", "--heads", "4")
    plan = splat.plan(splat.parse(PATTERN), seq_q=512, seq_kv=768, head_dim=64, heads_q=4, dtype="float32")
    assert (status, err) == (0, "")
    assert plan.explain() in out
    assert "512 x 768" in out
    assert any("\u2800" < sign <= "\u28ff" for sign in out)


def test_explain_without_a_picture_is_the_plan_alone(capsys):
    _, out, _ = run(capsys, "explain", PATTERN, "--seq", "512", "--no-picture")
    plan = splat.plan(splat.parse(PATTERN), seq_q=512, seq_kv=512, head_dim=64, dtype="float32")
    assert out == plan.explain() + "\n"


@pytest.mark.parametrize("options", [(), ("--backend", "cuda", "--dtype", "float16")], ids=["cpu", "cuda"])
def test_gradients_are_explained_and_their_texts_printed(capsys, options):
    mask = ("window(16)", "--seq", "64", *options)
    _, without, _ = run(capsys, "explain", *mask, "--no-picture")
    _, explained, _ = run(capsys, "explain", *mask, "--no-picture", "--backward")
    assert explained.startswith(without.rstrip())
    assert "chosen      gradients: " in explained.removeprefix(without.rstrip())
    _, text, _ = run(capsys, "source", *mask, "--backward")
    for name in ("dq", "dk", "dv"):
        assert name in text
    assert text != run(capsys, "source", *mask)[1]


def test_source_is_the_text_that_would_be_compiled(capsys, tmp_path):
    options = {"seq_q": 256, "seq_kv": 256, "head_dim": 16, "heads_q": 2, "dtype": "float32"}
    status, out, _ = run(capsys, "source", "window(16)", *SMALL)
    assert status == 0
    assert out == splat.compile(splat.window(16), **options).source
    path = tmp_path / "kernel.py"
    assert run(capsys, "source", "window(16)", *SMALL, "--output", str(path)) == (0, "", "")
    assert path.read_text() == out
    status, _, err = run(capsys, "source", "window(16)", *SMALL, "--output", str(tmp_path))
    assert status == 2
    assert err.startswith(f"error: --output wanted a file that can be written, got {tmp_path}: ")


@pytest.mark.parametrize("command", ["explain", "source"])
def test_a_typo_gets_a_suggestion_on_one_line(capsys, command):
    status, out, err = run(capsys, command, "windw(512)")
    assert (status, out) == (2, "")
    assert err == (
        "error: pattern windw(512): wanted a pattern such as 'window(512) | sinks(4)', got 'windw' at column 1. "
        "'windw' is not a constructor: did you mean 'window'?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["explain", "window(-1)"], "error: pattern window(-1): left: wanted"),
        (["demo", "--pattern", "__import__('os')"], "error: --pattern __import__('os'): wanted a pattern"),
        (
            ["demo", "--pattern", "documents([3, 4])", "--seq", "8"],
            "error: --pattern documents([3, 4]): lengths: wanted",
        ),
        (
            ["explain", "documents([3])", "--seq", "8"],
            "error: pattern documents([3]): lengths: wanted documents of 8 tokens for --seq",
        ),
        (["explain", "full()", "--heads", "3", "--heads-kv", "2"], "error: --heads-kv wanted as a number that divides"),
        (["source", "full()", "--target", "sm_90a", "--backend", "cpu"], "error: --target wanted as cpu for --backend"),
        (["demo", "--target", "sm_90a", "--dtype", "float32"], "error: --dtype wanted as float16 or bfloat16 for"),
        (
            ["demo", "--seq", "10000000", "--heads", "64"],
            "error: --seq 10000000 with --heads 64 and --head-dim 64 needs",
        ),
        (
            ["bench", "--seq", "2147483647"],
            "error: --seq 2147483647 with --heads 8 and --head-dim 64 needs about",
        ),
        (["explain", "bigbird(64)", "--seq", "2147483647"], "error: --seq 2147483647, planned with tables, needs"),
        (["explain", "full()", "--seq", "2147483647", "--backend", "cuda"], "error: --seq 2147483647, planned with"),
        (["demo", "--backend", "emulate"], "error: --seq 4096 with --heads 8 and --head-dim 64 takes the emulator"),
    ],
)
def test_errors_of_the_package_are_one_line_and_status_2(capsys, arguments, message):
    status, _, err = run(capsys, *arguments)
    assert status == 2
    assert err.startswith(message)
    assert len(err.splitlines()) == 1


def test_help_starts_without_numba_and_torch():
    code = (
        "import sys\nfrom splat_numba.cli import main\n"
        "try: main(['--help'])\nexcept SystemExit: pass\n"
        "sys.exit(str([n for n in ('numba', 'torch', 'matplotlib', 'hypothesis') if n in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]"


def test_doctor_finds_what_is_here_and_names_what_installs_the_rest(capsys, monkeypatch):
    here = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda names: None if "matplotlib" in names else here(names))
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    lines = {line.split()[0]: line for line in out.splitlines() if line.split()}
    assert here(("numpy",)) in lines["numpy"]
    assert "missing" in lines["matplotlib"]
    assert 'pip install "splat-numba[plot]"' in lines["matplotlib"]
    assert "-byte vectors" in lines["processor"]
    assert "All that is needed is here." in out


def test_doctor_reports_a_broken_installation_with_exit_status_1(capsys, monkeypatch):
    here = doctor.installed
    monkeypatch.setattr(doctor, "installed", lambda names: None if "filelock" in names else here(names))
    status, out, _ = run(capsys, "doctor")
    assert status == 1
    assert "Broken: filelock." in out


def test_doctor_shows_what_is_set_and_names_that_nothing_reads(capsys, monkeypatch):
    texts = {"PROGRESS": "off", "NUM_THREAD": "2", "XYZ": "", "TEST_ONE": "", "EMULATE": " ", "CACHE_SIZE": "much"}
    for name, text in texts.items():  # a blank counts as unset
        monkeypatch.setenv(f"SPLAT_{name}", text)
    found = {one.name.removeprefix("SPLAT_"): one for one in doctor.variables()}
    assert {name: one.state for name, one in found.items()} == {
        "CACHE_DIR": "ok", "CACHE_SIZE": "broken", "NUM_THREAD": "unknown", "PROGRESS": "ok", "XYZ": "unknown",
    }  # fmt: skip
    assert found["PROGRESS"].found == "off"
    assert found["NUM_THREAD"].advice == "unset it; did you mean SPLAT_NUM_THREADS?"
    assert found["XYZ"].advice == "unset it"
    monkeypatch.delenv("SPLAT_CACHE_SIZE")
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "unset it; did you mean SPLAT_NUM_THREADS?" in out


@pytest.mark.parametrize(
    ("driver", "wanted"),
    [
        (
            FakeDriver(),
            "GPU ok NVIDIA Fake, compute capability 9.0, 132 multiprocessors; targets "
            "sm_90a (float16, bfloat16), sm80 (float32), simt (float64): the first that takes a call",
        ),
        (
            FakeDriver(capability=(8, 0)),
            "132 multiprocessors; targets sm80 (float16, bfloat16, float32), simt (float64): the first that",
        ),
        (
            FakeDriver(capability=(7, 5)),
            "targets simt (float32, float64): the first that takes a call, here with head_dim",
        ),
        (FakeDriver(capability=(7, 0)), "got NVIDIA Fake of 7.0."),
        (FakeDriver(status=Status.CUDA_ERROR_NO_DEVICE), "got CUDA_ERROR_NO_DEVICE from the driver."),
    ],
)
def test_doctor_names_the_gpu_or_says_why_there_is_none(capsys, monkeypatch, driver, wanted):
    install(monkeypatch, driver)
    status, out, _ = run(capsys, "doctor")
    forget()
    assert status == 0
    assert wanted in " ".join(out.split())


def test_doctor_says_what_compiles_for_a_gpu(capsys, monkeypatch):
    monkeypatch.delenv("SPLAT_CUDA_COMPILER", raising=False)
    monkeypatch.setattr(doctor, "installed", lambda names: None if names == ("nvidia-nvvm",) else "1.2")
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    here = "cuda-core 1.2, cuda-bindings 1.2, nvidia-nvjitlink 1.2; not taken: "
    assert f"numba-cuda 1.2, {here}numba-cuda-mlir (SPLAT_CUDA_COMPILER)" in " ".join(out.split())
    monkeypatch.setenv("SPLAT_CUDA_COMPILER", "mlir")
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert f"numba-cuda-mlir 1.2, {here}numba-cuda (SPLAT_CUDA_COMPILER)" in " ".join(out.split())
    monkeypatch.delenv("SPLAT_CUDA_COMPILER")
    monkeypatch.setattr(doctor, "installed", lambda names: None if names == ("cuda-core",) else "1.2")
    status, out, _ = run(capsys, "doctor")
    assert status == 0
    assert "for kernels on NVIDIA GPUs: no cuda-core" in " ".join(out.split())
    assert 'pip install "splat-numba[cuda]"' in out


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX permissions")
def test_doctor_reports_a_cache_that_others_can_write_to(capsys, monkeypatch, tmp_path):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv("SPLAT_CACHE_DIR", str(folder))
    status, out, _ = run(capsys, "doctor")
    assert status == 1
    assert "can be written by others" in " ".join(out.split())
    assert "Broken: kernel cache." in out


@pytest.mark.parametrize(
    ("text", "width", "wanted"),
    [
        ("window(128)", 15, "window(128)"),
        ("sparse_transformer_strided(128)", 15, "sparse_\ntransformer_\nstrided(128)"),
        ("longformer(256, 64)", 18, "longformer(256,\n64)"),
        ("window(512) | sinks(4)", 16, "window(512) |\nsinks(4)"),
        ("", 15, ""),
    ],
)
def test_labels_break_where_they_can_be_read(text, width, wanted):
    assert break_label(text, width) == wanted
    assert break_label(text, 200) == text


@pytest.mark.parametrize("width", [40, 60, 120])
def test_words_too_long_for_a_terminal_go_on_below_themselves_and_pipes_get_them_whole(width):
    text = splat.plan(splat.window(512), seq_q=8192, seq_kv=8192, head_dim=64, dtype="float32", backend="cpu").explain()
    shown = {}
    for terminal in (True, False):
        console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
        print_words(console, text)
        shown[terminal] = console.file.getvalue().splitlines()
    assert shown[False] == text.splitlines()
    assert max(map(len, shown[True])) <= width
    assert " ".join(" ".join(shown[True]).split()) == " ".join(text.split())
    more = [line for line in shown[True] if line.startswith(" " * 12)]
    assert bool(more) == (max(map(len, text.splitlines())) > width)


def test_numbers_keep_three_digits():
    assert [milliseconds(s) for s in (0.00012, 0.0123, 0.123, 9.9, 12.3)] == [
        "0.12 ms", "12.3 ms", "123 ms", "9900 ms", "12.3 s",
    ]  # fmt: skip
    assert [percent(p) for p in (0, 0.00012, 0.0123, 0.5, 1)] == ["0%", "0.012%", "1.2%", "50.0%", "100%"]
