"""A comparison as a table and as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pretraining.results import Results
from pretraining.setting import METHODS
from pretraining.training import Progress

TITLES = {
    "dense": "dense (SDPA)",
    "low_rank": "low-rank",
    "kernel": "kernel",
    "flurka": "FLuRKA",
    "none": "no attention",
}
CLOCKS = {"wall": "on the wall clock", "process": "of the process, of all its threads together"}


def table(results: Results, seq: int) -> str:
    """One line a method: how fast it is, and its losses after equal times and after equal steps, least and most in
    brackets.
    """
    found = {method: [run for _, run in results.find("training", seq, method)] for method in METHODS}
    found = {method: runs for method, runs in found.items() if runs}
    if not found:
        return ""
    fewest = min(run.steps for runs in found.values() for run in runs)
    at_time = f"bits per byte after {results.setting.seconds:g} s"
    lines = [
        f"| attention | learning rate | seeds | ms a step | steps | {at_time} | after {fewest} steps |",
        "|---|---|---|---|---|---|---|",
    ]
    for method, runs in found.items():
        steps = [run.steps for run in runs]
        cells = (
            TITLES[method], f"{results.rate(seq, method):g}", str(len(runs)),
            f"{1000 * sum(run.seconds for run in runs) / sum(steps):.1f}", f"{np.mean(steps):.0f}",
            spread([run.points[-1][2] for run in runs]), spread([after(fewest, run) for run in runs]),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def spread(bits: list[float]) -> str:
    """The mean of all seeds, and their least and most."""
    return f"{np.mean(bits):.3f} ({min(bits):.3f} to {max(bits):.3f})"


def after(steps: int, run: Progress) -> float:
    """A training's loss after so many steps, between two evaluations along a line."""
    return float(np.interp(steps, [at for _, at, _ in run.points], [bits for *_, bits in run.points]))


def page(results: Results) -> str:
    """All tables, with what they were measured on and how."""
    setting, loads = results.setting, [run.load for _, run in results.runs]
    parts = [
        f"{results.machine}. Load average as trainings ended: {min(loads):.1f} to {max(loads):.1f}. "
        f"Seconds: {CLOCKS[setting.clock]}.",
        f"{setting.layers} layers of width {setting.width}, {setting.heads} heads, rank {setting.rank}, convolution of "
        f"{setting.convolution} bytes, {setting.tokens} bytes a step, {results.text}. Learning rates: the best of "
        f"{', '.join(f'{rate:g}' for rate in setting.rates)} after {setting.tuning_seconds:g} s "
        f"from {setting.tuning_seeds} seed{'s' * (setting.tuning_seeds > 1)}, for every method.",
    ]
    for seq in setting.seqs:
        lines = f"{seq} bytes a sequence; who only counts bytes needs {results.baselines[str(seq)]:.3f} bits."
        parts += [f"{lines}\n\n{table(results, seq)}"] if table(results, seq) else []
    return "\n\n".join(parts) + "\n"


def draw(results: Results, path: Path) -> None:
    """Losses against time and against steps: the mean of the seeds as a line, their range as a band."""
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        print("no picture: python -m pip install matplotlib")
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    seqs = results.setting.seqs
    figure, axes = plt.subplots(len(seqs), 2, figsize=(11, 4.2 * len(seqs)), squeeze=False, sharey="row")
    for row, seq in zip(axes, seqs, strict=True):
        for method in METHODS:
            runs = [run for _, run in results.find("training", seq, method)]
            for axis, along in zip(row, (0, 1), strict=True):
                _curve(axis, runs, along, TITLES[method])
        for axis, label in zip(row, ("seconds of training", "steps"), strict=True):
            axis.axhline(results.baselines[str(seq)], color="k", linestyle=":", label="counting bytes")
            axis.set(xlabel=label, ylabel="bits per masked byte", title=f"{seq} bytes a sequence")
            axis.set_xlim(left=0)
        row[0].set_ylim(top=results.baselines[str(seq)] + 1)  # what is above is the beginning
        row[0].legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _curve(axis: object, runs: list[Progress], along: int, label: str) -> None:
    if not runs:
        return
    points = np.array([run.points for run in runs])  # (seeds, evaluations, 3)
    places, bits = points[:, :, along].mean(axis=0), points[:, :, 2]
    (line,) = axis.plot(places, bits.mean(axis=0), ".-", label=label)  # type: ignore[attr-defined]
    axis.fill_between(places, bits.min(axis=0), bits.max(axis=0), color=line.get_color(), alpha=0.2)  # type: ignore[attr-defined]
