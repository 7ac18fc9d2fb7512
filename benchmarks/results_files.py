"""Where results are kept, and how a benchmark writes them: the numbers as JSON, what people read as Markdown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def options(doc: str | None, rounds: int = 5) -> argparse.ArgumentParser:
    """Those of every benchmark of calls in turns: how many rounds, and where results go. doc: of the script."""
    parser = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=rounds, help="%(default)s unless given")
    parser.add_argument("--output", type=Path, default=RESULTS, metavar="FOLDER", help="of the results")
    return parser


def save(folder: Path, name: str, found: Mapping[str, Any], text: str) -> None:
    """Write name.json and name.md in the folder, which is made. A run that is cut off leaves whole files."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, content in ((".json", json.dumps(found, indent=1) + "\n"), (".md", text)):
        begun = folder / f".{name}{suffix}.part"
        begun.write_text(content, encoding="utf-8")
        begun.replace(folder / f"{name}{suffix}")


def made_by(script: str) -> str:
    """The line of a report that says how to repeat it. script: its __file__."""
    return f"Made by `python benchmarks/{Path(script).name}`.\n"
