"""Masks and times as a picture file, with matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from splat_numba.cli.console import break_label, milliseconds
from splat_numba.cli.drawing import Picture
from splat_numba.cli.options import CommandError


def check_plot(path: Path) -> None:
    """Refuse what cannot be drawn before anything is run. Raises CommandError."""
    if find_spec("matplotlib") is None:
        raise CommandError('--plot needs matplotlib. Run: pip install "splat-numba[plot]"')
    from matplotlib.figure import Figure

    known = Figure().canvas.get_supported_filetypes()
    if path.suffix.removeprefix(".").lower() not in known:
        raise CommandError(f"--plot wanted a file ending in one of {', '.join(sorted(known))}, got {path}. Rename it.")
    if not path.absolute().parent.is_dir():
        raise CommandError(f"--plot wanted a file in a folder that exists, got {path}. Make the folder first.")


def plot_results(path: Path, results: Sequence[tuple[str, Picture, float]], dense_seconds: float, shapes: str) -> None:
    """Every mask, and a bar for its time in seconds beside the dense one. CommandError for an unwritable file."""
    from matplotlib.figure import Figure

    across = min(4, len(results))
    down = -(-len(results) // across)
    figure = Figure(figsize=(max(2.6 * across, 6.4), 3.0 * down + 0.32 * len(results) + 1.6), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=[3.0 * down, 0.32 * len(results) + 1.6])
    pictures, bars = parts
    axes = pictures.subplots(down, across, squeeze=False).ravel()
    for axis, (label, picture, _) in zip(axes, results, strict=False):
        _draw_mask(axis, label, picture)
    for axis in axes[len(results) :]:
        axis.set_axis_off()
    _draw_times(bars.subplots(), results, dense_seconds, shapes)
    try:
        figure.savefig(path, dpi=150)
    except OSError as error:
        raise CommandError(f"--plot wanted a file that can be written, got {path}: {error}.") from None


def _draw_mask(axis: Any, label: str, picture: Picture) -> None:
    # a root makes faint dots visible: a stride of 16 keeps 6% of the pairs
    (top, bottom), (left, right) = picture.rows, picture.cols
    axis.imshow(np.sqrt(picture.kept), cmap="Blues", vmin=0, vmax=1, extent=(left, right, bottom, top), aspect="auto",
                interpolation="nearest")  # fmt: skip
    axis.set_title(break_label(label, 26), fontsize=9)
    axis.set_xticks([left, right])
    axis.set_yticks([top, bottom])
    axis.tick_params(labelsize=7)


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
