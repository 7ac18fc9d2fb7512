"""Lines, tables and the figure of gpu_operators.py. The figure has SPLAT's shape: speed-up by pattern and density.

    python benchmarks/gpu_operators_report.py FIRST.json=OF_WHAT OTHER.json=OF_WHAT ... OUTPUT    # as one: md, png

Runs of one machine. Of a case that several runs have, the first one's row stands; =OF_WHAT says which texts a run had.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from gpu_operators_peers import DENSE, FUSED, LIBRARIES, OURS, SIZES, triton_name

TRITON = tuple(map(triton_name, SIZES))
GROUPS = {"library": LIBRARIES, "Triton": TRITON, "dense": (DENSE,)}
ASKED = {
    ("sddmm", "library"): 2.5, ("sddmm", "Triton"): 1.5, ("spmm", "library"): 2.8, ("spmm", "Triton"): 1.5,
    ("attention", "Triton"): 2.05, ("attention", FUSED): 4.0,
}  # fmt: skip
COLOURS = {"library": "#4c78a8", "Triton": "#f58518", "dense": "#9ecae9"}


def ms_of(row: dict[str, Any], names: Iterable[str]) -> dict[str, float]:
    """Times of those contenders that have one."""
    return {name: row["times"][name]["ms"] for name in names if "ms" in row["times"].get(name, {})}


def ours_of(row: dict[str, Any]) -> float | None:
    """Our time: of attention that of the three steps; the fused one stands beside."""
    return ms_of(row, [OURS]).get(OURS)


def ratio(row: dict[str, Any], group: str) -> float | None:
    """The best time of a group over ours."""
    ours, others = ours_of(row), ms_of(row, GROUPS[group])
    return min(others.values()) / ours if ours and others else None


def fused_ratio(row: dict[str, Any]) -> float | None:
    """Of attention, Triton's best time of three steps over ours of one."""
    fused, others = ms_of(row, [FUSED]).get(FUSED), ms_of(row, GROUPS["Triton"])
    return min(others.values()) / fused if fused and others else None


def could(row: dict[str, Any]) -> float | None:
    """Triton's best time over the floor: what a kernel that reaches the ceiling would have, and none more."""
    others = ms_of(row, GROUPS["Triton"])
    return min(others.values()) / row["floor_ms"] if others else None


def shown(row: dict[str, Any]) -> str:
    """A line: our time, its share of the ceiling, and how many times as long the others take."""
    ours = ours_of(row) or float("nan")
    others = [f"{name} {ms / ours:.2f}x" for name, ms in ms_of(row, row["times"]).items() if name != OURS]
    missing = [f"{name}: ERROR {one['error'][:110]}" for name, one in row["times"].items() if "error" in one]
    head = (
        f"{row['operator']:9} {row['mask']:8} n {row['seq']:5} b {row['batch']:2} {row['dtype']:8} {row['kept']:6.1%}"
    )
    return f"{head} {ours:8.4f} ms, {row['floor_ms'] / ours:4.0%} of the ceiling; {', '.join(others + missing)}"


def _number(value: float | None, digits: int = 2) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _cells(row: dict[str, Any]) -> list[str]:
    ours, fused = ours_of(row), ms_of(row, [FUSED]).get(FUSED)
    times = [_number(ms_of(row, [name]).get(name), 4) for name in (*LIBRARIES, *TRITON, DENSE)]
    share = row["floor_ms"] / ours if ours else None
    return [
        row.get("run", ""),
        row["mask"], str(row["seq"]), str(row["batch"]), row["dtype"], f"{row['kept']:.1%}", _number(ours, 4),
        _number(fused, 4), f"{share:.0%}" if share else "", *times, *(_number(ratio(row, group)) for group in GROUPS),
        _number(could(row)),
    ]  # fmt: skip


def table(rows: list[dict[str, Any]]) -> str:
    """Markdown: a line a mask; columns that are empty throughout are left out."""
    head = [
        "run", "mask", "n", "batch", "dtype", "kept", "ours ms", "fused ms", "of ceiling",
        *(f"{name} ms" for name in (*LIBRARIES, *TRITON, DENSE)), *(f"{group} / ours" for group in GROUPS),
        "Triton / floor",
    ]  # fmt: skip
    cells = [_cells(row) for row in rows]
    used = [place for place in range(len(head)) if any(line[place] for line in cells)]
    lines = [[head[place] for place in used], ["---"] * len(used)]
    lines += [[line[place] for place in used] for line in cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def means(rows: list[dict[str, Any]]) -> list[str]:
    """A line for each group: the geometric mean of its best time over ours, per dtype, and what is asked; of attention
    Triton's over the fused one's too; then how far the ceilings would let any kernel go, and which share of them ours
    has.
    """
    found = []
    for name, text, ratios in (
        *((group, f"best of {group} / ours", [ratio(row, group) for row in rows]) for group in GROUPS),
        (FUSED, "best of Triton / fused", [fused_ratio(row) for row in rows]),
    ):
        words, asked = _mean_words(rows, ratios), ASKED.get((rows[0]["operator"], name))
        if words:
            found.append(f"- {text}: {words}{f'; asked {asked}' if asked else ''}.")
    for text, ratios in (
        ("best of Triton / the floor of bytes and products", [could(row) for row in rows]),
        ("the floor / ours", [row["floor_ms"] / ours if (ours := ours_of(row)) else None for row in rows]),
    ):
        if words := _mean_words(rows, ratios):
            found.append(f"- {text}: {words}.")
    return found


def _mean_words(rows: list[dict[str, Any]], ratios: list[float | None]) -> str:
    """Of each dtype the geometric mean of what is there."""
    words = []
    for dtype in dict.fromkeys(row["dtype"] for row in rows):
        there = [got for row, got in zip(rows, ratios, strict=True) if row["dtype"] == dtype and got]
        if there:
            words.append(f"{geometric_mean(there):.2f} in {dtype} (least {min(there):.2f}, {len(there)} cases)")
    return "; ".join(words)


def report(found: dict[str, Any]) -> str:
    """All of it as Markdown."""
    ceilings = found["ceilings"]
    rates = ", ".join(f"{name} {value:.1f} TFLOP/s" for name, value in ceilings.items() if name != "gbs")
    parts = [
        f"# SPLAT's operators on a GPU\n\n{found['hardware']}; {found['date']}. 12 heads x 64; ms: the smaller of "
        f"CUDA-event median and CUDA-graph time. Ceilings of the same run: {ceilings['gbs']:.0f} GB/s (a copy), "
        f"{rates} (8192^3). Of a kernel's share of them: every array once, every kept pair's product. Attention is the "
        'three operators one after the other; "fused" is `attention`. All results were compared with float64.',
        "\n".join(f"{start}`python benchmarks/gpu_operators.py {given}`{of}." for start, given, of in _runs(found)),
    ]
    for operator in dict.fromkeys(row["operator"] for row in found["rows"]):
        rows = [row for row in found["rows"] if row["operator"] == operator]
        parts.append(f"## {operator}\n\n{table(rows)}")
        parts.append("\n".join(means([row for row in rows if row["mask"] != "graph"] or rows)))
    left_out = found.get("left_out")
    parts += [f"Left out for time: {', '.join(left_out)}."] if left_out else []
    return "\n\n".join([*parts, *_errors(found["rows"])]) + "\n"


def joined(runs: list[dict[str, Any]], of: list[str]) -> dict[str, Any]:
    """Runs of one machine as one; of: which texts each had. ValueError for runs of several machines."""
    if len({run["hardware"] for run in runs}) != 1:
        raise ValueError(f"runs wanted of one machine, got {[run['hardware'] for run in runs]}. Join each one's own.")
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    for number, run in enumerate(runs, 1):
        for row in run["rows"]:
            key = tuple(row[name] for name in ("operator", "mask", "seq", "dtype", "wanted_kept"))
            rows.setdefault(key, row | {"run": str(number)})
    measured = {
        " ".join(str(row[key]) for key in ("mask", "seq", "dtype")) + f" {row['wanted_kept']:.0%}"
        for row in rows.values()
    }
    return {
        **runs[0], "ceilings": {name: one for run in reversed(runs) for name, one in run["ceilings"].items()},
        "runs": [
            {"run": number, "arguments": run["arguments"], "of": text}
            for number, (run, text) in enumerate(zip(runs, of, strict=True), 1)
        ],
        "rows": list(rows.values()),
        "left_out": [case for case in runs[0].get("left_out", []) if case not in measured],
    }  # fmt: skip


def _runs(found: dict[str, Any]) -> list[tuple[str, str, str]]:
    """Of each run how its line starts, its arguments, and which texts it had."""
    if "runs" not in found:
        return [("Made by ", found["arguments"], "")]
    return [(f"- Run {run['run']}: ", run["arguments"], f", {run['of']}") for run in found["runs"]]


def _errors(rows: list[dict[str, Any]]) -> list[str]:
    """What went wrong, equal texts once."""
    where: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        for name, one in row["times"].items():
            for text in {one[key] for key in ("error", "graph_error") if key in one}:
                place = f"{row['operator']} {row['mask']} {row['seq']} {row['dtype']} {row['kept']:.0%}"
                where.setdefault((name, text), []).append(place)
    lines = [f"- {name}: {text} ({places[0]}; {len(places)} cases)" for (name, text), places in where.items()]
    return ["## Not measured\n\n" + "\n".join(lines)] if lines else []


def plot(found: dict[str, Any], path: Path) -> None:
    """A panel for each operator and dtype; by pattern and share a bar for each group, the mean over lengths."""
    from matplotlib.figure import Figure

    rows = [row for row in found["rows"] if row["mask"] != "graph" and ours_of(row)]
    operators = list(dict.fromkeys(row["operator"] for row in rows))
    dtypes = list(dict.fromkeys(row["dtype"] for row in rows))
    if not rows:
        return
    figure = Figure(figsize=(6.5 * len(dtypes), 2.6 * len(operators)), layout="constrained")
    panels = figure.subplots(len(operators), len(dtypes), squeeze=False)
    for line, operator in zip(panels, operators, strict=True):
        for axis, dtype in zip(line, dtypes, strict=True):
            here = [row for row in rows if (row["operator"], row["dtype"]) == (operator, dtype)]
            axis.set_visible(bool(here))
            _panel(axis, here)
            axis.set_title(f"{operator}, {dtype}", fontsize=9)
    figure.legend(*panels[0][0].get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    figure.suptitle(f"Time of the best of each group over ours; {found['hardware']}; {found['date']}", fontsize=9)
    figure.savefig(path, dpi=130)


def _panel(axis: Any, rows: list[dict[str, Any]]) -> None:
    masks = list(dict.fromkeys(row["mask"] for row in rows))
    places = sorted({(row["mask"], row["wanted_kept"]) for row in rows}, key=lambda one: (masks.index(one[0]), one[1]))
    width = 0.8 / len(GROUPS)
    for number, group in enumerate(GROUPS):
        heights = {}
        for place, key in enumerate(places):
            here = [row for row in rows if (row["mask"], row["wanted_kept"]) == key]
            ratios = [got for row in here if (got := ratio(row, group))]
            if ratios:
                heights[place] = geometric_mean(ratios)
        if heights:
            at = [place + (number - 1) * width for place in heights]
            bars = axis.bar(at, list(heights.values()), width, color=COLOURS[group], label=f"best of {group}")
            axis.bar_label(bars, [f"{height:.1f}" for height in heights.values()], fontsize=6)
    axis.axhline(1, color="#888888", linewidth=0.8)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}x")
    axis.set_xticks(range(len(places)), [f"{mask}\n{kept:.0%}" for mask, kept in places], fontsize=6)
    axis.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Join runs."""
    *given, last = sys.argv[1:]
    paths, of = zip(*(one.split("=", 1) for one in given), strict=True)
    output = Path(last)
    found = joined([json.loads(Path(path).read_text(encoding="utf-8")) for path in paths], list(of))
    output.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    output.with_suffix(".md").write_text(report(found), encoding="utf-8")
    plot(found, output.with_suffix(".png"))


if __name__ == "__main__":
    main()
