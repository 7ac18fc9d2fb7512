"""`splat-numba explain` and `source`: what would be done for a mask, in words and as text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from rich.syntax import Syntax

from splat_numba.arguments.sizes import LARGEST_DIM
from splat_numba.cli.console import output, print_words, progress
from splat_numba.cli.drawing import side_by_side
from splat_numba.cli.memory import check_memory
from splat_numba.cli.options import (
    CommandError,
    Place,
    Sizes,
    Text,
    file_errors,
    flag,
    number,
    pattern_errors,
    read_pattern,
    shortened,
)
from splat_numba.cli.texts import backward_sources, sources
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.closed_form import closed_form
from splat_numba.formats.patterns import Pattern
from splat_numba.formats.raster import mask_picture
from splat_numba.gen.plans.plan import Plan

DOTS = 48
LONGEST_DRAWN = 1 << 18  # a picture takes time in proportion to the rows: of bigbird(64), 5 s here
TABLE_BYTES = 500  # a row, while tables are made of window(16); of bigbird(64) 1300

EXPLAIN_EPILOG = """\
examples:
  splat-numba explain "window(512) | sinks(4)" --seq 8192
  splat-numba explain "causal().align_end()" --seq 1 --seq-kv 4096 --heads 32 --heads-kv 8
  splat-numba explain "window(512)" --seq 8192 --backward --backend cuda --dtype bfloat16
"""
SOURCE_EPILOG = """\
examples:
  splat-numba source "window(512) | sinks(4)" --seq 8192
  splat-numba source "strided(16)" --head-dim 128 --dtype float16 --output kernel.py
"""


@Parameter(name="*")
@dataclass(frozen=True, slots=True)
class AllSizes(Sizes):
    """All sizes of a call. None: as the queries'."""

    seq_kv: Annotated[int | None, number("keys (default: as --seq)", 0)] = None
    value_dim: Annotated[int | None, number("of a value (default: as --head-dim)", 1, LARGEST_DIM)] = None
    heads_kv: Annotated[int | None, number("key heads (default: as --heads)", 1)] = None
    batch: Annotated[int, number("sequences", 1)] = 1


def run_explain(
    pattern: Text,
    /,
    *,
    sizes: AllSizes = AllSizes(),
    place: Place = Place(),
    backward: Annotated[bool, flag("say how gradients are made too")] = False,
    no_picture: Annotated[bool, flag("print the words only")] = False,
) -> int:
    """Print picture and plan."""
    plan = _plan(pattern, sizes, place, backward=backward)
    console = output()
    seq_q, seq_kv = plan.problem.seq_q, plan.problem.seq_kv
    if not no_picture and max(seq_q, seq_kv) > LONGEST_DRAWN:
        console.print(f"Not drawn: a picture is made for at most {LONGEST_DRAWN:,} tokens.", style="dim")
    elif not no_picture and seq_kv:
        mask = ACSR.from_pattern(read_pattern(pattern), seq_q, seq_kv)
        console.print(side_by_side(console, [(shortened(pattern), mask_picture(mask, DOTS))]))
    print_words(console, plan.explain())
    return 0


def run_source(
    pattern: Text,
    /,
    *,
    sizes: AllSizes = AllSizes(),
    place: Place = Place(),
    backward: Annotated[bool, flag("of the gradients instead")] = False,
    file: Annotated[
        Path | None, Parameter(name="--output", metavar="FILE", help="write the text there instead")
    ] = None,
) -> int:
    """Print the generated text, or write it to a file."""
    plan = _plan(pattern, sizes, place, backward=backward)
    found = (
        backward_sources(read_pattern(pattern), plan, place.backend, place.target)
        if backward
        else sources(plan, place.backend, place.target)
    )
    text = _joined([one.text for one in found])
    if file is not None:
        with file_errors("--output", file, "written"):
            file.write_text(text, encoding="utf-8")
        return 0
    console = output()
    if console.is_terminal:
        console.print(Syntax(text, "python", background_color="default", word_wrap=True))
    else:
        console.file.write(text)
    return 0


def _joined(texts: Sequence[str]) -> str:
    """Texts one after the other, where there are several."""
    if not texts:
        raise CommandError("nothing is launched for these lengths, so there is no text. Give more keys.")
    heads = [f"# Text {number} of {len(texts)}\n" if len(texts) > 1 else "" for number in range(1, len(texts) + 1)]
    return "\n\n".join(head + text for head, text in zip(heads, texts, strict=True))


def _plan(text: str, sizes: AllSizes, place: Place, *, backward: bool) -> Plan:
    dtype = place.chosen_dtype()
    if sizes.heads_kv and sizes.heads % sizes.heads_kv:
        raise CommandError(f"--heads-kv wanted as a number that divides --heads {sizes.heads}, got {sizes.heads_kv}. "
                           "Change one of them.")  # fmt: skip
    pattern = read_pattern(text)
    from splat_numba import api  # after the pattern: a typo is told at once

    with pattern_errors(text):
        _check_tables(pattern, sizes.seq, place)
        with progress(1) as track:
            track("planning", 0)
            return api.plan(
                pattern,
                seq_q=sizes.seq,
                seq_kv=sizes.seq if sizes.seq_kv is None else sizes.seq_kv,
                head_dim=sizes.head_dim,
                value_dim=sizes.value_dim,
                heads_q=sizes.heads,
                heads_kv=sizes.heads_kv,
                batch=sizes.batch,
                dtype=dtype,
                backend=place.backend,
                target=place.target,
                backward=backward,
            )


def _check_tables(pattern: Pattern, seq: int, place: Place) -> None:
    """Raise CommandError where the tables of a plan need more memory than there is."""
    if place.needs_gpu_plan() or closed_form(pattern) is None:
        check_memory(TABLE_BYTES * seq, f"--seq {seq}, planned with tables,", "--seq")


EXPLAIN = App(name="explain", default_command=run_explain, help_epilogue=EXPLAIN_EPILOG)
SOURCE = App(name="source", default_command=run_source, help_epilogue=SOURCE_EPILOG)
