"""What is typed: refusals on one line with a suggestion, help that can be read anywhere, completion in a shell."""

import io
import re
import shutil
import subprocess
from typing import get_args
from unittest import mock

import pytest
from rich.console import Console

import splat_numba as splat
from splat_numba.arguments.backends import BACKENDS
from splat_numba.cli import selftest
from splat_numba.cli.entry import APP, COMMANDS
from tests.cli.command_run import run

LENGTHS, DIMS = "a whole number from 1 to 2147483647", "a whole number from 1 to 256"
CACHE = "list, clear, warm, export, import"
PATTERN = 'PATTERN wanted (such as "window(512) | sinks(4)"'


@pytest.mark.parametrize(
    ("line", "command", "fault"),
    [
        ("demo --seq 0", "demo", f"--seq wanted as {LENGTHS}, got '0'."),
        ("demo --seq 4k", "demo", f"--seq wanted as {LENGTHS}, got '4k'."),
        ("explain full() --head-dim 257", "explain", f"--head-dim wanted as {DIMS}, got '257'."),
        (
            "cache warm full() --operators sddmm softmx", "cache warm",
            "--operators wanted as one of attention, sddmm, softmax, spmm, got 'softmx': did you mean softmax?",
        ),
        ("cache warm full() --head-dim 8 0", "cache warm", f"--head-dim wanted as {DIMS}, got '0'."),
        ("bench --heads -1", "bench", f"--heads wanted as {LENGTHS}, got '-1'."),
        ("selftest --seed -1", "selftest", "--seed wanted as a whole number >= 0, got '-1'."),
        ("selftest --seconds nan", "selftest", "--seconds wanted as a number of seconds > 0 and <= 86400, got 'nan'."),
        (f"source full() --batch {'9' * 5000}", "source", f"--batch wanted as {LENGTHS}, got '{'9' * 57}...'."),
        ("explain full() --target sm_90", "explain",
         "--target wanted as one of cpu, sm_90a, sm80, sm_80, simt, got 'sm_90': did you mean sm_90a?"),
        ("demo --dtype i8", "demo", "--dtype wanted as one of float16, bfloat16, float32, float64, got 'i8'."),
        ("explain", "explain", f"{PATTERN}), got nothing."),
        ("cache warm", "cache warm", f"{PATTERN}; one or more), got nothing."),
        ("demo --seq", "demo", "--seq wanted (tokens), got nothing."),
        ("cache import x.zip", "cache import", "--sha256 wanted (the hash that export printed), got nothing."),
        ("", "", f"COMMAND wanted as one of {', '.join(COMMANDS)}, got nothing."),
        ("cache", "cache", f"COMMAND wanted as one of {CACHE}, got nothing."),
        ("explian full()", "", f"COMMAND wanted as one of {', '.join(COMMANDS)}, got 'explian': did you mean explain?"),
        ("cache wram", "cache", f"COMMAND wanted as one of {CACHE}, got 'wram': did you mean warm?"),
        ("--verison", "", "--verison is no option of splat-numba: did you mean --version?"),
        ("demo --head_dims=3", "demo", "--head_dims is no option of splat-numba demo: did you mean --head-dim?"),
        ("cache list --al", "cache list", "--al is no option of splat-numba cache list: did you mean --all?"),
        ("explain -- full() --seq 8", "explain",
         "--seq wanted before --, behind which there are arguments only, got it there."),
        ("demo --hlep", "demo", "--hlep is no option of splat-numba demo: did you mean --help?"),
        ("explain -x(1)", "explain", "-x(1) is no option of splat-numba explain."),
        ("explain full() --backward=maybe", "explain", "--backward wanted without a value, got 'maybe'."),
        ("doctor now", "doctor", "splat-numba doctor wanted no 'now': it takes options only, or no more arguments."),
    ],
)  # fmt: skip
def test_what_does_not_parse_is_refused_on_one_line(capsys, line, command, fault):
    see = " ".join(["See splat-numba", *command.split(), "--help."])
    assert run(capsys, *line.split()) == (2, "", f"error: {fault} {see}\n")


def test_the_last_of_a_number_that_is_given_twice_counts():
    _, bound, _ = APP.parse_args(["explain", "full()", "--seq", "8", "--seq", "9", "--backward"])
    assert (bound.arguments["sizes"].seq, bound.arguments["backward"]) == (9, True)


def test_backends_that_are_tested_alone():
    assert get_args(selftest.Alone) == BACKENDS[1:]


def every_app(app=APP, chain=()):
    """All commands with the words that name them."""
    yield chain, app
    for name, inner in app.resolved_commands().items():
        if not name.startswith("-"):
            yield from every_app(inner, (*chain, name))


def printed_help(words, *, width, encoding):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    console = Console(file=stream, width=width, highlight=False, markup=False)
    APP([*words, "--help"], console=console)
    stream.flush()
    return stream.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize("width", [60, 120])
def test_help_is_read_at_any_width_without_colour_and_in_ascii(width):
    for words, app in every_app():
        text = printed_help(words, width=width, encoding="ascii")
        assert max(map(len, text.splitlines())) <= width
        assert "\x1b" not in text
        assert printed_help(words, width=width, encoding="utf-8") == text
        flat = " ".join(text.split())
        assert flat.startswith(f"Usage: {' '.join(('splat-numba', *words))}")
        assert " ".join(app.help.split()) in flat
        options = [] if app.default_command is None else app.assemble_argument_collection()
        for option in options:
            assert not option.show or option.name in flat
            assert not option.show or option.parameter.help.split()[0] in flat


def test_version_and_help(capsys):
    assert run(capsys, "--version")[:2] == (0, f"splat-numba {splat.__version__}\n")
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert re.findall(r"^    ([a-z]+) ", out, re.MULTILINE) == list(COMMANDS)
    for command in COMMANDS:
        status, out, _ = run(capsys, command, "--help")
        assert status == 0
        assert f"  splat-numba {command}" in out.partition("example")[2]


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not here")
def test_bash_completes_what_was_installed(capsys, tmp_path):
    with mock.patch.dict("os.environ", HOME=str(tmp_path)):
        status, out, _ = run(capsys, "--install-completion", "--shell", "bash")
    assert status == 0
    script = tmp_path / ".local/share/bash-completion/completions/splat-numba"
    assert str(script) in out
    assert str(script) in (tmp_path / ".bashrc").read_text()
    lines = [("",), ("ex",), ("explain", "--he"), ("cache", "w"), ("demo", "--dtype", "b"), ("demo", "--target", "")]
    calls = "".join(
        f"COMP_WORDS=(splat-numba {' '.join(map(repr, words))}); COMP_CWORD={len(words)}; _splat_numba; "
        'echo "${COMPREPLY[*]}"\n'
        for words in lines
    )
    code = f". {script}\n{calls}"
    done = subprocess.run(["bash", "-c", code], capture_output=True, text=True, check=True)  # noqa: S607
    assert [line.split() for line in done.stdout.splitlines()] == [
        list(COMMANDS), ["explain"], ["--head-dim", "--heads", "--heads-kv", "--help"], ["warm"], ["bfloat16"],
        ["cpu", "sm_90a", "sm80", "sm_80", "simt"],
    ]  # fmt: skip


def test_zsh_has_its_text():
    text = APP.generate_completion(shell="zsh")  # noqa: S604 - the name of one
    assert text.startswith("#compdef splat-numba")
    assert [name for name in COMMANDS if f"'{name}:" not in text] == []
