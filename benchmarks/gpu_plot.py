"""Speed-up over FlexAttention and over the best peer, a bar for each mask: of gpu_attention.py or gpu_gradients.py.

python benchmarks/gpu_plot.py benchmarks/results/gpu_attention_all_peers.json  # writes the .png beside it
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

COLOURS = {"flex_ratio": "#9ecae9", "best_ratio": "#4c78a8"}
LABELS = {"flex_ratio": "over FlexAttention", "best_ratio": "over the best peer"}
SCALED = " (*: scaled from the baseline)"
WIDTH = 0.4


def plot(found: dict[str, Any], path: Path) -> None:
    """One panel for every head_dim of the rows, or of the main section. Raises ValueError if it has no ratios."""
    from matplotlib.figure import Figure

    every = found["rows"] if "rows" in found else found["sections"].get("main", [])
    rows = [row for row in every if "flex_ratio" in row or "best_ratio" in row]
    if not rows:
        raise ValueError("results wanted with rows or a main section that have ratios, got none. Measure first.")
    dims = sorted({row["dim"] for row in rows}, reverse=True)
    figure = Figure(figsize=(11, 4.2 * len(dims)), layout="constrained")
    panels = figure.subplots(len(dims), 1, squeeze=False)[:, 0]
    for axis, dim in zip(panels, dims, strict=True):
        _panel(axis, [row for row in rows if row["dim"] == dim], dim)
    panels[0].legend(fontsize=8, frameon=False)
    figure.suptitle(f"{found['hardware'].split(';')[0]}; {found['date']}", fontsize=9)
    figure.savefig(path, dpi=150)


def _panel(axis: Any, rows: list[dict[str, Any]], dim: int) -> None:
    for side, key in ((-0.5, "flex_ratio"), (0.5, "best_ratio")):
        places = [place for place, row in enumerate(rows) if key in row]
        ratios = [rows[place][key] for place in places]
        scaled = [key == "best_ratio" and rows[place]["best"]["how"] == "scaled" for place in places]
        name = LABELS[key] + (SCALED if any(scaled) else "")
        bars = axis.bar([place + side * WIDTH for place in places], ratios, WIDTH, color=COLOURS[key], label=name)
        labels = [f"{ratio:.2f}{'*' if star else ''}" for ratio, star in zip(ratios, scaled, strict=True)]
        axis.bar_label(bars, labels, padding=2, fontsize=7)
    axis.axhline(1, color="#888888", linewidth=0.8)
    axis.set_yscale("log", base=2)
    axis.yaxis.set_major_formatter("{x:g}x")
    axis.set_xticks(range(len(rows)), [row["case"].replace("_", "\n") for row in rows], fontsize=7)
    axis.set_ylabel(f"speed-up, head_dim {dim}", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.01, y=0.12)


def main() -> None:
    """Read the results, write the picture."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "results", type=Path, nargs="?", default=Path(__file__).parent / "results" / "gpu_attention_all_peers.json"
    )
    parser.add_argument("--output", type=Path, help="default: beside the results")
    args = parser.parse_args()
    path = args.output or args.results.with_suffix(".png")
    plot(json.loads(args.results.read_text(encoding="utf-8")), path)
    print(path)


if __name__ == "__main__":
    main()
