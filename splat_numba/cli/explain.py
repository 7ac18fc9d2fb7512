"""`splat-numba explain` and `source`: what would be done for a mask, in words and as text."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.syntax import Syntax

from splat_numba.arguments.sizes import LARGEST_DIM, LARGEST_LENGTH
from splat_numba.cli.console import output, print_words, progress
from splat_numba.cli.drawing import side_by_side
from splat_numba.cli.memory import check_memory
from splat_numba.cli.options import (
    CommandError,
    add_backend_options,
    add_command,
    add_shape_options,
    count,
    needs_gpu_plan,
    pattern_errors,
    read_pattern,
    shortened,
    whole_number,
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

EXPLAIN_HELP = "Draw a mask and say what kernel it gets: tiles, passes, predicted time, what was refused and why."
EXPLAIN_EPILOG = """\
examples:
  splat-numba explain "window(512) | sinks(4)" --seq 8192
  splat-numba explain "causal().align_end()" --seq 1 --seq-kv 4096 --heads 32 --heads-kv 8
  splat-numba explain "window(512)" --seq 8192 --backward --backend cuda --dtype bfloat16
"""
SOURCE_HELP = "Print the source text that is generated for a mask."
SOURCE_EPILOG = """\
examples:
  splat-numba source "window(512) | sinks(4)" --seq 8192
  splat-numba source "strided(16)" --head-dim 128 --dtype float16 --output kernel.py
"""


def add_parsers(commands: Any) -> None:
    """Add both commands."""
    explain = add_command(commands, "explain", run_explain, EXPLAIN_HELP, EXPLAIN_EPILOG)
    source = add_command(commands, "source", run_source, SOURCE_HELP, SOURCE_EPILOG)
    for parser in (explain, source):
        parser.add_argument("pattern", help='such as "window(512) | sinks(4)"')
        add_shape_options(parser, heads=1)
        length, dim = whole_number(0, LARGEST_LENGTH), whole_number(1, LARGEST_DIM)
        parser.add_argument("--seq-kv", type=length, metavar="N", help="keys (default: as --seq)")
        parser.add_argument("--value-dim", type=dim, metavar="N", help="of a value (default: as --head-dim)")
        parser.add_argument("--heads-kv", type=count(), metavar="N", help="key heads (default: as --heads)")
        parser.add_argument("--batch", type=count(), default=1, metavar="N", help="(default: %(default)s)")
        add_backend_options(parser)
    explain.add_argument("--backward", action="store_true", help="say how gradients are made too")
    source.add_argument("--backward", action="store_true", help="of the gradients instead")
    explain.add_argument("--no-picture", action="store_true", help="print the words only")
    source.add_argument("--output", type=Path, metavar="FILE", help="write the text there instead")


def run_explain(args: argparse.Namespace) -> int:
    """Print picture and plan."""
    plan = _plan(args)
    console = output()
    seq_q, seq_kv = plan.problem.seq_q, plan.problem.seq_kv
    if not args.no_picture and max(seq_q, seq_kv) > LONGEST_DRAWN:
        console.print(f"Not drawn: a picture is made for at most {LONGEST_DRAWN:,} tokens.", style="dim")
    elif not args.no_picture and seq_kv:
        mask = ACSR.from_pattern(read_pattern(args.pattern), seq_q, seq_kv)
        console.print(side_by_side(console, [(shortened(args.pattern), mask_picture(mask, DOTS))]))
    print_words(console, plan.explain())
    return 0


def run_source(args: argparse.Namespace) -> int:
    """Print the generated text, or write it to a file."""
    plan = _plan(args)
    found = (
        backward_sources(read_pattern(args.pattern), plan, args.backend, args.target)
        if args.backward
        else sources(plan, args.backend, args.target)
    )
    text = _joined([one.text for one in found])
    if args.output is not None:
        try:
            args.output.write_text(text, encoding="utf-8")
        except OSError as error:
            raise CommandError(f"--output wanted a file that can be written, got {args.output}: {error}.") from None
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


def _plan(args: argparse.Namespace) -> Plan:
    pattern = read_pattern(args.pattern)
    seq_kv = args.seq if args.seq_kv is None else args.seq_kv
    with pattern_errors(args.pattern):
        _check_tables(pattern, args)
        with progress(1) as track:
            track("planning", 0)
            return _planned(pattern, args, seq_kv)


def _check_tables(pattern: Pattern, args: argparse.Namespace) -> None:
    """Raise CommandError where the tables of a plan need more memory than there is."""
    if needs_gpu_plan(args) or closed_form(pattern) is None:
        check_memory(TABLE_BYTES * args.seq, f"--seq {args.seq}, planned with tables,", "--seq")


def _planned(pattern: Pattern, args: argparse.Namespace, seq_kv: int) -> Plan:
    from splat_numba import api  # after parsing: a typo is told at once

    return api.plan(
        pattern,
        seq_q=args.seq,
        seq_kv=seq_kv,
        head_dim=args.head_dim,
        value_dim=args.value_dim,
        heads_q=args.heads,
        heads_kv=args.heads_kv,
        batch=args.batch,
        dtype=args.dtype,
        backend=args.backend,
        target=args.target,
        backward=args.backward,
    )
