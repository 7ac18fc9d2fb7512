"""`splat-numba bench`: our time beside the peers that are installed, with equal threads."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from rich.console import Console
from rich.text import Text

from splat_numba.cli.cases import DEFAULT_PATTERNS, Case, chosen_cases, masks_of
from splat_numba.cli.console import (
    Tracker,
    break_label,
    is_narrow,
    make_table,
    milliseconds,
    output,
    percent,
    print_table,
    progress,
)
from splat_numba.cli.measure import LEAST_RUNS, MOST_RUNS, Shapes, Timed, build, timed
from splat_numba.cli.options import CommandError, Patterns, Place, TimedSizes
from splat_numba.formats.acsr import ACSR
from splat_numba.settings import current

EPILOG = """\
examples:
  splat-numba bench
  splat-numba bench --pattern "window(256)" --seq 16384 --peer SDPA

columns:
  splat, its peers  medians without warm-up and compiling
  speed-up          the fastest peer / splat
  compile           generating and compiling, or "cached"
"""
Peer = Literal["SDPA", "SDPA mask", "Flex", "NumPy"]
NOTHING = "-"


@dataclass(frozen=True, slots=True)
class Row:
    """One pattern; times and seconds of compiling by peer, only those that ran."""

    label: str
    density: float
    ours: Timed
    compiling: float
    cached: bool
    peers: Mapping[str, Timed]
    peers_compiling: Mapping[str, float]


def run(
    *,
    patterns: Patterns = None,
    sizes: TimedSizes = TimedSizes(),
    place: Place = Place(),
    peer: Annotated[list[Peer] | None, Parameter(help="this one alone; again for more (default: all)")] = None,
) -> int:
    """Print hardware, versions and the table."""
    shapes = Shapes.of(sizes, place)
    shapes.check(len(patterns or DEFAULT_PATTERNS))
    cases = chosen_cases(patterns, shapes.seq)
    masks = masks_of(cases, shapes.seq)

    from splat_numba.cli.peers import find_peers, versions
    from splat_numba.runtime.device import cores

    peers, notes = find_peers(shapes.dtype)
    if peer:
        missing = [name for name in peer if name not in peers]
        if missing:
            raise CommandError(" ".join([f"--peer {missing[0]} does not run here.", *notes]))
        peers = {name: peers[name] for name in peer}
    threads = current().threads or cores()
    console = output()
    console.print(Text(f"attention with {shapes}", style="bold"))
    console.print(
        f"{processor_name()}; {threads} threads each; Python {platform.python_version()}, {versions(threads)}"
    )
    with progress(len(cases) * (1 + len(peers))) as track:
        rows = [_measure(case, mask, shapes, peers, track, n) for n, (case, mask) in
                enumerate(zip(cases, masks, strict=True))]  # fmt: skip
    _print_table(console, rows, list(peers))
    widest = max(one.spread for row in rows for one in (row.ours, *row.peers.values()))
    notes.append(f"Medians of {LEAST_RUNS} to {MOST_RUNS} calls; the middle half of a cell's calls spans at most "
                 f"{widest:.0%} of it.")  # fmt: skip
    if place.needs_gpu_plan():
        notes.append("The peers ran on the CPU. On a GPU: python benchmarks/gpu_attention.py, in a clone.")
    for note in notes:
        console.print(note, style="dim")
    return 0


def _measure(case: Case, mask: ACSR, shapes: Shapes, peers: Mapping[str, Any], track: Tracker, number: int) -> Row:
    done = number * (1 + len(peers))
    track(f"{case.label}: splat", done)
    built = build(case, shapes)
    operands = shapes.operands(case)
    ours = timed(lambda: built.kernel(*operands))
    times: dict[str, Timed] = {}
    compiling: dict[str, float] = {}
    for name, prepare in peers.items():
        done += 1
        track(f"{case.label}: {name}", done)
        prepared = prepare(case.pattern, mask, operands)
        if prepared is not None:
            times[name], compiling[name] = timed(prepared.call), prepared.seconds
    return Row(case.label, mask.density, ours, built.seconds, built.cached, times, compiling)


def _print_table(console: Console, rows: Sequence[Row], peers: Sequence[str]) -> None:
    flex = ["Flex compile"] if "Flex" in peers else []
    table = make_table(console, ("pattern", "density", "splat", *peers, "speed-up", "compile", *flex))
    width = max(12, console.width - (8 if is_narrow(console) else 10) * (4 + len(peers) + len(flex)))
    for row in rows:
        fastest = min((one.seconds for one in row.peers.values()), default=None)
        compiling = "cached" if row.cached else f"{row.compiling:.1f} s"
        flex_compiling = [f"{row.peers_compiling['Flex']:.1f} s" if "Flex" in row.peers else NOTHING] if flex else []
        table.add_row(
            break_label(row.label, width),
            percent(row.density),
            milliseconds(row.ours.seconds),
            *(milliseconds(row.peers[name].seconds) if name in row.peers else NOTHING for name in peers),
            Text(NOTHING if fastest is None else f"{fastest / row.ours.seconds:.2f}x", style="green"),
            compiling,
            *flex_compiling,
        )
    print_table(console, table)


def processor_name() -> str:
    """The processor as the system names it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


APP = App(name="bench", default_command=run, help_epilogue=EPILOG)
