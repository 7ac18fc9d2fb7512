"""`splat-numba gallery`: masks that people use, each as a picture with its density and where it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cyclopts import App
from rich.console import Console
from rich.table import Table

from splat_numba.cli.console import break_label, make_table, output, percent, print_table
from splat_numba.cli.drawing import side_by_side
from splat_numba.cli.options import Patterns, Plot, pattern_errors, read_pattern, shortened
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.drawing import natural_lengths
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.raster import mask_picture

EPILOG = """\
examples:
  splat-numba gallery
  splat-numba gallery --plot gallery.png
  splat-numba gallery --pattern "window(64) | sinks(4)" --pattern "bigbird(16)" --plot mine.png

A mask is drawn at lengths that show how it is built; density is what it keeps there. In Python: splat.draw(mask).
"""
COLUMNS = ("pattern", "density", "drawn at", "where it comes from")
DOTS, PLOT_DOTS = 32, 256  # a side, of a picture on a terminal and in a file
# Where the text of a mask comes from in words; --pattern replaces them.
GALLERY = (
    ("full()", "Vaswani et al. 2017: attention in an encoder"),
    ("causal()", "decoders, GPT"),
    ("causal().align_end()", "decoding in chunks: the last query is the last token"),
    ("window(64)", "local attention, both sides"),
    ("window(64, 0)", "Mistral: sliding windows"),
    ("(window(64, 0) | sinks(4)) & causal()", "StreamingLLM: attention sinks"),
    ("prefix(64)", "PrefixLM, T5: a prompt that is seen from everywhere"),
    ("documents((70, 40, 110, 36)) & causal()", "packed batches of several documents"),
    ("blocked(64)", "chunks: Llama 4's local layers (causal)"),
    ("blocked(32, 1, 1)", "block-local attention with neighbours"),
    ("dilated(16, 4)", "Longformer's dilated heads, LongNet"),
    ("strided(16) & causal()", "every sixteenth token"),
    ("columns(32, 28, 4) & causal()", "summary tokens at the end of every block"),
    ("sparse_transformer_strided(32)", "Child et al. 2019, strided"),
    ("sparse_transformer_fixed(32, 4)", "Child et al. 2019, fixed"),
    ("global_tokens(16)", "ETC: global tokens"),
    ("longformer(32, 16)", "Beltagy et al. 2020: window and global tokens"),
    ("random_blocks(16, 3, 0)", "BigBird's random part"),
    ("bigbird(16)", "Zaheer et al. 2020: blocks, global and random ones"),
    ("neighborhood((16, 16), 5)", "NATTEN: windows on a grid of pixels"),
    ("neighborhood((16, 16), 5, dilation=2)", "NATTEN: the same, dilated"),
    ("neighborhood((6, 6, 6), 3)", "NATTEN: windows in a video or a volume"),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A mask of the gallery. origin: where it comes from, empty for a user's own."""

    label: str
    origin: str
    mask: ACSR


def run(*, patterns: Patterns = None, plot: Plot = None) -> int:
    """Run the command."""
    if plot is not None:
        from splat_numba.cli.plotting import check_plot, plot_masks

        check_plot(plot)
    shown = masks_of(patterns)
    console = output()
    pictures = [(one.label, mask_picture(one.mask, DOTS)) for one in shown]
    console.print(side_by_side(console, pictures), soft_wrap=False)
    print_table(console, table_of(console, shown))
    if plot is not None:
        plot_masks(plot, [(one.label, mask_picture(one.mask, PLOT_DOTS)) for one in shown])
        console.print(f"Wrote {plot}.")
    return 0


def masks_of(texts: Sequence[str] | None) -> list[Shown]:
    """The masks that were asked for, or all of the gallery. Raises CommandError for text that is no pattern."""
    asked = [(text, "") for text in texts] if texts else GALLERY
    return [Shown(shortened(text), origin, _stored(read_pattern(text, "--pattern"), text)) for text, origin in asked]


def _stored(pattern: Pattern, text: str) -> ACSR:
    with pattern_errors(text, "--pattern"):
        return ACSR.from_pattern(pattern, *natural_lengths(pattern))


def table_of(console: Console, shown: Sequence[Shown]) -> Table:
    """One row a mask."""
    table = make_table(console, COLUMNS)
    table.columns[-1].justify = "left"
    for one in shown:
        lengths = f"{one.mask.shape[0]} x {one.mask.shape[1]}"
        table.add_row(break_label(one.label, 40), percent(one.mask.density), lengths, one.origin)
    return table


APP = App(name="gallery", default_command=run, help_epilogue=EPILOG)
