"""Masks and times as a picture file, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from splat_numba.cli.console import break_label, milliseconds
from splat_numba.cli.options import CommandError, file_errors
from splat_numba.pictures.axes import MATPLOTLIB, draw_on, has_matplotlib
from splat_numba.pictures.picture import Picture


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before anything is run. Raises CommandError."""
    if not has_matplotlib():
        raise CommandError(f"--plot needs matplotlib. Run: {MATPLOTLIB}")
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise CommandError(f"--plot wanted a file ending in one of {', '.join(sorted(known))}, got {path}. Rename it.")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--plot wanted a file in a folder that exists, got {path}. Make the folder first.")


def plot_results(path: Path, results: Sequence[tuple[str, Picture, float]], dense_seconds: float, shapes: str) -> None:
    """Every mask, and a bar for its time in seconds beside the dense one. CommandError for an unwritable file."""
    from matplotlib.figure import Figure

    across, down = _grid(len(results))
    bars_high = 0.32 * len(results) + 1.6
    figure = Figure(figsize=(max(WIDE * across, 6.4), HIGH * down + bars_high), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[HIGH * down, bars_high])
    _draw_masks(parts[0], [(label, picture) for label, picture, _ in results])
    _draw_times(parts[1].subplots(), results, dense_seconds, shapes)
    _save(figure, path)


def plot_masks(path: Path, masks: Sequence[tuple[str, Picture]]) -> None:
    """Every mask below its label. CommandError for an unwritable file."""
    from matplotlib.figure import Figure

    across, down = _grid(len(masks))
    figure = Figure(figsize=(WIDE * across, HIGH * down), layout="constrained")
    _draw_masks(figure, masks)
    _save(figure, path)


WIDE, HIGH = 2.6, 3.0  # inches of a mask with its label


def _grid(pictures: int) -> tuple[int, int]:
    """(across, down) of so many, at most four across."""
    across = max(1, min(4, pictures))
    return across, -(-pictures // across)


def _draw_masks(figure: Any, masks: Sequence[tuple[str, Picture]]) -> None:
    across, down = _grid(len(masks))
    axes = figure.subplots(down, across, squeeze=False).ravel()
    for axis, (label, picture) in zip(axes, masks, strict=False):
        draw_on(axis, picture, break_label(label, 26))
    for axis in axes[len(masks) :]:
        axis.set_axis_off()


def _save(figure: Any, path: Path) -> None:
    with file_errors("--plot", path, "written"):
        figure.savefig(path, dpi=150)


def _draw_times(axis: Any, results: Sequence[tuple[str, Picture, float]], dense_seconds: float, shapes: str) -> None:
    labels = [label for label, _, _ in results] + ["full(), dense"]
    times = [seconds for _, _, seconds in results] + [dense_seconds]
    bars = axis.barh(labels, [1e3 * seconds for seconds in times], color=["#4c78a8"] * len(results) + ["#bbbbbb"])
    axis.bar_label(bars, [milliseconds(seconds) for seconds in times], padding=3, fontsize=8)
    axis.invert_yaxis()
    axis.set_xlabel(f"ms; {shapes}", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.margins(x=0.12)
