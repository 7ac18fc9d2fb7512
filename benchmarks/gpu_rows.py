"""Benchmarks on a GPU whose results are rows of times and rates: printed as they come, and at the end as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from gpu_timing import Budget, describe, event_ms


def options(doc: str | None, seq: int) -> argparse.ArgumentParser:
    """How many tokens, and where the JSON goes. doc: of the script."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq", type=int, default=seq)
    parser.add_argument("--json", type=Path)
    return parser


def rated(who: str, call: Callable[[], torch.Tensor], operations: int, budget: Budget) -> dict[str, Any]:
    """Milliseconds and TFLOP/s of a call of so many operations; what it raises, in place of milliseconds."""
    try:
        ms = event_ms(lambda _: call(), 1, budget)
    except Exception as error:  # noqa: BLE001 - whatever a contender raises is its result
        return {f"{who}_ms": describe(error)}
    return {f"{who}_ms": ms, f"{who}_tflops": operations / ms * 1e-9}


def say(rows: Iterable[dict[str, Any]], args: argparse.Namespace) -> None:
    """Print each row when it is there, then all as a line of JSON, which is written where the arguments say."""
    found = []
    for row in rows:
        found.append(row)
        print({name: float(f"{one:.3g}") if isinstance(one, float) else one for name, one in row.items()}, flush=True)
    facts = {"gpu": torch.cuda.get_device_name(), "torch": torch.__version__, "seq": args.seq, "rows": found}
    text = json.dumps(facts)
    if args.json:
        args.json.write_text(text + "\n")
    print(text)
