"""Masked language models of bytes, trained for the same time with dense, low-rank, kernel and FLuRKA attention.

    python examples/flurka_pretraining.py  # CPU, under 4 minutes: table, JSON and picture in ./flurka_pretraining
    python examples/flurka_pretraining.py --preset cuda --minutes 8  # a GPU, a piece; the same command goes on
    python examples/flurka_pretraining.py --preset cuda --only flurka --seeds 1 --text book.txt

"When pre-training on a fixed time budget, FLuRKA yield better perplexity than full attention" (Gupta et al., 2023,
arXiv 2306.15799): this measures whether they do, on the Python standard library's sources or on files of yours.
Perplexity is 2 to the power of the bits that are reported.

The encoders are the same but for their attention, begin from the same distributions, and see the same bytes with the
same masks in the same order. AdamW's rate rises over the first steps and falls with the root of their number. How high
it rises is tuned equally: every method trains with each of the same rates for the same time, from seeds that are not
reported, and goes on with the rate whose mean loss is least on a text that is used for nothing else. Then every method
trains for the same seconds from every seed. Seconds are those of whole steps on the wall clock; evaluations and the
compilation of kernels are not counted. On a busy machine `--clock process` counts the process's own seconds instead,
which on an idle core, with OMP_NUM_THREADS=1 and SPLAT_NUM_THREADS=1, are the same.

Dense attention is PyTorch's SDPA. Low-rank attention is given the order of products that FLuRKA's layer has, then SDPA.
Kernel attention is `flurka_numba.kernel_attention`, FLuRKA `FlurkaAttention`. "No attention" is the same model without:
what attention adds is the distance to it.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pretraining.report import draw, page
from pretraining.results import Results, describe_machine, read_results
from pretraining.setting import METHODS, PRESETS, Setting
from pretraining.text import Text, alone, held_out, read_text
from pretraining.training import Task, Training

NUMBERS = (
    "seconds",
    "tuning_seconds",
    "tuning_seeds",
    "seeds",
    "tokens",
    "layers",
    "width",
    "heads",
    "rank",
    "convolution",
)
FIRST_TUNING_SEED = 1000  # apart from those that are reported


def main(given: Sequence[str] | None = None) -> None:
    """Train what is not trained yet, print the tables, and write them, the numbers and the picture."""
    args, setting = parse(given)
    args.output.mkdir(parents=True, exist_ok=True)
    path = args.output / f"flurka_pretraining_{args.preset}.json"
    text = read_text(args.text)
    results = read_results(path, begin(setting, text, args.text))
    until = math.inf if args.minutes is None else time.monotonic() + 60 * args.minutes
    results, finished = train_all(results, text, args.only, path, until)
    if results.runs:
        shown = page(results)
        print(shown)
        path.with_suffix(".md").write_text(f"# Pretraining for the same time\n\n{shown}", encoding="utf-8")
        draw(results, path.with_suffix(".png"))
    print("finished:" if finished else "to go on, give the same command again:", path)


def parse(given: Sequence[str] | None) -> tuple[Any, Setting]:
    """The arguments, and the setting that they mean."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    parser.add_argument("--text", type=Path, nargs="+", default=[], help="files instead of the standard library")
    parser.add_argument(
        "--only", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help=", ".join(METHODS)
    )
    parser.add_argument("--minutes", type=float, help="stop after these; the same command goes on later")
    parser.add_argument(
        "--output", type=Path, default=Path("flurka_pretraining"), help="folder for all that is written"
    )
    parser.add_argument(
        "--clock", choices=("wall", "process"), default="wall", help="process: for busy CPUs, one thread"
    )
    parser.add_argument("--seq", type=int, nargs="+", help="bytes of a sequence, a comparison for each")
    for name in NUMBERS:
        kind = float if name.endswith("seconds") else int
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, help="instead of the preset's")
    args = parser.parse_args(given)
    own = {name: getattr(args, name) for name in NUMBERS if getattr(args, name) is not None}
    setting = replace(PRESETS[args.preset], clock=args.clock, **own)
    setting = replace(setting, seqs=tuple(args.seq)) if args.seq else setting
    if setting.clock == "process" and setting.device == "cuda":
        parser.error(
            "--clock wanted as wall on a GPU, whose time no process is charged with, got process. Leave it out."
        )
    for seq in setting.seqs:
        if seq % setting.rank or setting.tokens % seq:
            parser.error(
                f"--seq wanted as a multiple of --rank {setting.rank} that divides --tokens {setting.tokens}, got "
                f"{seq}. Change one of them."
            )
    return args, setting


def begin(setting: Setting, text: Text, files: Sequence[Path]) -> Results:
    """Results without trainings."""
    source = ", ".join(path.name for path in files) or "the standard library's sources"
    bits = {str(seq): alone(text, held_out(text.reported, seq, setting)) for seq in setting.seqs}
    return Results(setting, describe_machine(setting.device), f"{source}, {len(text.training):,} bytes", bits)


def tuning_tasks(results: Results, methods: Sequence[str], seq: int) -> Iterator[Task]:
    """A training for every method, tuning seed and rate; ``training_tasks`` follow."""
    setting = results.setting
    for method in methods:
        for seed in range(FIRST_TUNING_SEED, FIRST_TUNING_SEED + setting.tuning_seeds):
            for rate in setting.rates:
                yield Task("tuning", seq, method, seed, rate, setting.tuning_seconds)


def training_tasks(results: Results, methods: Sequence[str], seq: int) -> Iterator[Task]:
    """A training for every seed and method, in turns, so that all methods meet the same load of the machine."""
    setting = results.setting
    for seed in range(setting.seeds):
        for method in methods:
            rate = results.rate(seq, method)
            assert rate is not None
            yield Task("training", seq, method, seed, rate, setting.seconds)


def train_all(results: Results, text: Text, methods: Sequence[str], path: Path, until: float) -> tuple[Results, bool]:
    """The results with what could be trained in time, each written as it is finished; whether that is all."""
    for seq in results.setting.seqs:
        for make in (tuning_tasks, training_tasks):
            for task in make(results, methods, seq):
                if results.has(task):
                    continue
                if not (found := train(task, results, text, path, until)):
                    return results, False
                results = found
    return results, True


def train(task: Task, results: Results, text: Text, path: Path, until: float) -> Results | None:
    """The results and this task's, written; None where its time was too short: then its state is, to go on from."""
    setting, kept = results.setting, path.with_suffix(".pt")
    looked_at = text.tuning if task.purpose == "tuning" else text.reported
    batches = held_out(looked_at, task.seq, setting)
    training = Training(task, setting, text.training, batches)
    if kept.exists():
        training.load(kept)
    if not training.run(until):
        training.save(kept)
        return None
    kept.unlink(missing_ok=True)
    found = results.with_run(task, training.progress)
    found.save(path)
    seconds, steps, bits = training.progress.points[-1]
    print(f"{task.purpose} {task.method:>8}, seq {task.seq}, seed {task.seed}, rate {task.rate:g}: "
          f"{bits:.3f} bits per byte after {steps} steps, {seconds:.1f} s", flush=True)  # fmt: skip
    return found


if __name__ == "__main__":
    main()
