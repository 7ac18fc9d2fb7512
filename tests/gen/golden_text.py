"""Texts that are kept in files, which people read: compared by the tests, or written anew."""

from pathlib import Path

import pytest

ADVICE = "Run `python -m pytest tests/gen --update-golden`, read the difference, and commit it."


def golden(path: Path, text: str, *, update: bool) -> str:
    """What the file holds, which is ``text`` after an update."""
    if update:
        path.write_text(text, encoding="utf-8")
    if not path.exists():
        pytest.fail(f"{path} is missing. {ADVICE}")
    return path.read_text(encoding="utf-8")
