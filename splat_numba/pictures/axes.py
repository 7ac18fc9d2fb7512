"""Pictures on matplotlib's axes. It is imported here alone, where a figure is made."""

from __future__ import annotations

from importlib.util import find_spec
from textwrap import fill
from typing import Any

import numpy as np

from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.pictures.picture import Picture
from splat_numba.pictures.svg import size_of
from splat_numba.plain import kind

MATPLOTLIB = 'pip install "splat-numba[plot]"'  # what brings it
TITLE_WIDTH = 46  # characters of a title's line over a usual figure


def has_matplotlib() -> bool:
    """Whether it can be imported."""
    return find_spec("matplotlib") is not None


def show(picture: Picture, title: str, ax: Any = None) -> Any:
    """Draw on the axes, or on those of a new figure, and give them.

    Raises ArgumentTypeError for what are no axes, BackendError where a figure is wanted and matplotlib is missing.
    """
    if ax is None:
        ax = _new_axes()
    elif not hasattr(type(ax), "imshow"):
        raise ArgumentTypeError(f"ax wanted as axes of matplotlib, got {kind(ax)}. Leave it out for a new figure.")
    draw_on(ax, picture, fill(title, TITLE_WIDTH))
    return ax


def _new_axes() -> Any:
    if not has_matplotlib():
        raise BackendError(
            f"ax wanted as axes, or matplotlib for new ones, which is not installed. Run: {MATPLOTLIB}; notebooks "
            "show a mask and a plan without it."
        )
    from matplotlib import pyplot as plt

    return plt.subplots(figsize=(5.6, 5.2), layout="constrained")[1]


def draw_on(axis: Any, picture: Picture, title: str, size: int = 9) -> None:
    """Draw on the axes: its layers, the lengths as ticks, and a legend where a plan is drawn. size: of the title."""
    (top, bottom), (left, right) = picture.rows, picture.cols
    extent = (left, max(right, left + 1), max(bottom, top + 1), top)  # axes have no place for a mask without tokens
    axis.imshow(_colours(picture), extent=extent, aspect="auto", interpolation="nearest")
    wide, high = size_of(picture)
    axis.set_box_aspect(high / wide)  # a square mask is a square, as it is in notebooks
    axis.set_title(title, fontsize=size)
    axis.set_xticks([left, right])
    axis.set_yticks([top, bottom])
    axis.tick_params(labelsize=7)
    if picture.legend:
        for name, colour in picture.legend.items():
            axis.scatter([], [], marker="s", color=colour, label=name)
        axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.06), ncols=2, fontsize=7, frameon=False)


def _colours(picture: Picture) -> Any:
    """(rows, cols, 3): of every cell the mean of white and its layers' colours."""
    shown = np.ones((max(picture.kept.shape[0], 1), max(picture.kept.shape[1], 1), 3))
    for layer in picture.layers if picture.kept.size else ():
        colour = [int(layer.colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        share = np.clip(layer.shares, 0, 1)[:, :, None]
        shown += (np.array(colour) - 1) * share
    return np.clip(shown, 0, 1)


__all__ = ["MATPLOTLIB", "draw_on", "has_matplotlib", "show"]
