"""What reports have in common: Markdown's tables, numbers that may be missing, and what went wrong in a row."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]], *, aligned: bool = False) -> str:
    """Markdown. aligned: its columns are, so that it reads in a terminal too."""
    lines = [[*head], *map(list, rows)]
    if aligned:
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        lines = [[cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines]
        rule = "|".join("-" * (width + 2) for width in widths)
    else:
        rule = "|".join("---" for _ in head)
    first, *rest = (f"| {' | '.join(line)} |" for line in lines)
    return "\n".join([first.replace("|  |", "| |"), f"|{rule}|", *rest])


def steps_table(steps: Mapping[str, Mapping[str, Sequence[float]]], digits: int) -> str:
    """Medians in milliseconds, a column a head_dim. steps: by head_dim and name the least and the median, in us."""
    names = next(iter(steps.values()))
    rows = [[name, *(f"{of[name][1] / 1e3:.{digits}f}" for of in steps.values())] for name in names]
    return markdown_table(("", *(f"head_dim {dim}" for dim in steps)), rows)


def host_table(kinds: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Least and median, a column a kind of call. kinds: by its words and name the least and the median, in us."""
    names = dict.fromkeys(name for of in kinds.values() for name in of)
    cells = {name: [of.get(name) for of in kinds.values()] for name in names}
    rows = [[name, *(f"{c[0]:.1f} ({c[1]:.1f})" if c else "" for c in found)] for name, found in cells.items()]
    return markdown_table(("", *kinds), rows)


def number(value: float | None, digits: int = 3, unit: float = 1) -> str:
    """A number in units, or nothing."""
    return "" if value is None or math.isnan(value) else f"{value / unit:.{digits}f}"


def errors_of(row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(who, text) of everything that went wrong in a row."""
    found = [("row", row["error"])] if row.get("error") else []
    found += list(row.get("errors", {}).items())
    found += [(name, one[key]) for name, one in row.get("times", {}).items() for key in ("error", "graph_error")
              if key in one]  # fmt: skip
    return found


def error_lines(where: Iterable[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """What went wrong, equal texts once, as a section of a page. where: (place, row)."""
    places: dict[tuple[str, str], list[str]] = {}
    for place, row in where:
        for error in errors_of(row):
            places.setdefault(error, []).append(place)
    if not places:
        return []
    return ["## Errors", "\n".join(f"- {who}: {text} ({', '.join(at)})" for (who, text), at in places.items())]
