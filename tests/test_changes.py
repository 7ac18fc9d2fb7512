"""changes/: every file becomes a line of the changelog."""

import re
import subprocess
import sys
import tomllib

import pytest

import splat_numba as splat
from tests.documentation import ROOT

FILES = [path for path in sorted((ROOT / "changes").iterdir()) if path.name != "README.md"]
KINDS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["towncrier"]["fragment"]


def test_every_file_has_a_name_that_is_read():
    """towncrier passes over others in silence."""
    names = re.compile(rf"\+[\w-]+\.(?:{'|'.join(KINDS)})\.md")
    assert [path.name for path in FILES if not names.fullmatch(path.name)] == []


def test_what_is_cited_is_this_version():
    assert f"version: {splat.__version__}" in (ROOT / "CITATION.cff").read_text(encoding="utf-8").splitlines()


def test_a_version_can_be_built():
    pytest.importorskip("towncrier", reason="towncrier is not installed")
    before = (ROOT / "CHANGELOG.md").read_bytes()
    command = [sys.executable, "-m", "towncrier", "build", "--draft", "--version", "9.9", "--date", "today"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert (ROOT / "CHANGELOG.md").read_bytes() == before
    written = done.stdout.partition("## 9.9 (today)\n")[2].split()
    assert written
    flat = " ".join(written)
    assert [path.name for path in FILES if " ".join(path.read_text(encoding="utf-8").split()) not in flat] == []
