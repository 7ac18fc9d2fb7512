"""The examples that need NumPy alone, at reduced sizes: they run as they say, and what they train gets better."""

import re
import runpy
import sys

import pytest

from tests.documentation import ROOT

EXAMPLES = ROOT / "examples"


def printed(monkeypatch, capsys, name, *options):
    """The lines that an example prints. What it asserts itself holds, or this raises."""
    monkeypatch.setattr(sys, "argv", [name, *options])
    runpy.run_path(str(EXAMPLES / name), run_name="__main__")
    return capsys.readouterr().out.splitlines()


def columns(lines):
    """The numbers of a table, but for shares, a list a row, of the rows that begin with a step."""
    rows = [line for line in lines if re.match(r" +\d+ ", line)]
    return [[float(one) for one in re.findall(r"\d+\.\d+(?!\d*%)", row)] for row in rows]


def test_dilated_windows_are_checked_and_timed(monkeypatch, capsys):
    lines = printed(monkeypatch, capsys, "dilated_window.py")
    assert [line.partition(":")[0].strip() for line in lines] == [f"dilated(128, {step})" for step in (1, 4, 16)]


def test_an_attention_of_ones_own_is_fuzzed(monkeypatch, capsys):
    assert printed(monkeypatch, capsys, "fuzz_your_own.py") == ["100 problems agree with the oracle"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("train_character_model.py", ("--steps", "4", "--seq", "64", "--batch", "2")),
        ("graph_attention.py", ("--nodes", "300", "--steps", "6")),
    ],
)
def test_losses_of_what_is_trained_fall(name, options, monkeypatch, capsys):
    rows = columns(printed(monkeypatch, capsys, name, *options))
    assert len(rows) > 2
    assert len(rows[0]) == 2
    assert all(last < first for first, last in zip(rows[0], rows[-1], strict=True))
