"""Settings: every variable is declared once, described as it is declared, read in one place, and refuses nonsense."""

import re
from dataclasses import fields

import pytest

import splat_numba as splat
from splat_numba.settings import NAMES, VARIABLES, Settings, current
from tests.documentation import PAGES, ROOT, table_below

SOURCES = [path for package in ("splat_numba", "flurka_numba") for path in sorted((ROOT / package).rglob("*.py"))]
OF_TESTS = {"SPLAT_TEST_", "SPLAT_TEST_EVERY_CHIP", "SPLAT_TEST_EMULATED"}
GOOD = {
    "SPLAT_NUM_THREADS": "3",
    "SPLAT_CACHE": "off",
    "SPLAT_CACHE_DIR": "~/a b",
    "SPLAT_CACHE_SIZE": "1k",
    "SPLAT_DUMP_DIR": "d",
    "SPLAT_CUDA_COMPILER": "MLIR",
    "SPLAT_PROGRESS": "no",
    "SPLAT_EMULATE": "yes",
}


def test_every_field_has_its_variable():
    assert sorted(one.field for one in VARIABLES) == sorted(one.name for one in fields(Settings))
    assert len(set(NAMES)) == len(NAMES)


def test_the_page_is_what_is_declared():
    declared = [[f"`{one.name}`", one.meaning, one.values, one.unset] for one in VARIABLES]
    assert table_below(ROOT / "docs" / "settings.md", "Read from") == declared


def test_names_that_are_written_down_are_settings():
    pattern = re.compile(r"\bSPLAT_[A-Z_]+\b")
    named = {name for path in (*SOURCES, *PAGES) for name in pattern.findall(path.read_text(encoding="utf-8"))}
    assert named - {*NAMES} - OF_TESTS - {"SPLAT_"} == set()


def test_the_environment_is_read_in_one_place():
    reads = re.compile(r"(?:environ\b|getenv)[^\n]*SPLAT_")
    found = {path.relative_to(ROOT).as_posix() for path in SOURCES if reads.search(path.read_text(encoding="utf-8"))}
    assert found == {"splat_numba/warm.py"}  # which sets one for the processes that it starts


def test_each_is_read_at_every_call(monkeypatch):
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    assert current() == Settings()
    for name in NAMES:
        monkeypatch.setenv(name, GOOD[name])
    read = current()
    assert [one.field for one in VARIABLES if getattr(read, one.field) == getattr(Settings(), one.field)] == []
    for name in NAMES:
        monkeypatch.setenv(name, " ")
    assert current() == Settings()


@pytest.mark.parametrize("variable", [one for one in VARIABLES if one.wanted != "a folder"], ids=lambda one: one.name)
def test_nonsense_is_refused_by_name(monkeypatch, variable):
    monkeypatch.setenv(variable.name, "nonsense" * 20)
    with pytest.raises(splat.ArgumentError) as caught:
        current()
    got = repr(("nonsense" * 5) + "...")
    assert str(caught.value) == f"{variable.name} wanted as {variable.wanted}, got {got}. Set it, or unset it."
