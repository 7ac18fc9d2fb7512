"""The trainings that are finished, in a file that grows with each."""

from __future__ import annotations

import json
import math
import os
import platform
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pretraining.setting import Setting
from pretraining.training import Progress, Task

Point = tuple[float, int, float]


@dataclass(frozen=True, slots=True)
class Results:
    """Finished trainings, and what was learned about the text. Values; ``with_run`` gives another one."""

    setting: Setting
    machine: str
    text: str
    baselines: dict[str, float]  # by seq: bits per masked byte of who only counts bytes
    runs: tuple[tuple[Task, Progress], ...] = ()

    def find(self, purpose: str, seq: int, method: str) -> list[tuple[Task, Progress]]:
        """Those of one purpose, length and method."""
        return [run for run in self.runs if (run[0].purpose, run[0].seq, run[0].method) == (purpose, seq, method)]

    def has(self, task: Task) -> bool:
        """Whether the task is finished."""
        return any(done == task for done, _ in self.runs)

    def with_run(self, task: Task, progress: Progress) -> Results:
        """And one more."""
        return replace(self, runs=(*self.runs, (task, progress)))

    def rate(self, seq: int, method: str) -> float | None:
        """The learning rate whose tuning ended with the least mean loss; None before all of them are tried."""
        tried = self.find("tuning", seq, method)
        if len(tried) < len(self.setting.rates) * self.setting.tuning_seeds:
            return None
        losses: dict[float, float] = {}
        for task, progress in tried:
            losses[task.rate] = losses.get(task.rate, 0.0) + _or_last(progress.points[-1][2])
        return min(losses, key=losses.__getitem__)

    def save(self, path: Path) -> None:
        """As JSON, a line a training."""
        head = {name: getattr(self, name) for name in ("machine", "text", "baselines")} | {
            "setting": asdict(self.setting)
        }
        lines = [json.dumps({**asdict(task), **asdict(progress)}) for task, progress in self.runs]
        whole = json.dumps(head)[:-1] + ', "runs": [\n' + ",\n".join(lines) + "\n]}\n"
        other = path.with_suffix(".part")
        other.write_text(whole, encoding="utf-8")
        other.replace(path)


def read_results(path: Path, fresh: Results) -> Results:
    """What the file holds, or ``fresh`` without one. Exits where it was made with another setting or text."""
    if not path.exists():
        return fresh
    held = json.loads(path.read_text(encoding="utf-8"))
    wanted = json.loads(json.dumps({"setting": asdict(fresh.setting), "text": fresh.text}))
    for name, value in wanted.items():
        if held[name] != value:
            raise SystemExit(
                f"--output wanted without results, or with some of {name} {value}, got {path} of {held[name]}. Name "
                "another folder, or delete the file."
            )
    return replace(fresh, machine=held["machine"], runs=tuple(map(_run, held["runs"])))


def _run(row: dict[str, Any]) -> tuple[Task, Progress]:
    parts = ({name: row[name] for name in kind.__dataclass_fields__} for kind in (Task, Progress))
    task, progress = parts
    return Task(**task), Progress(**progress)


def _or_last(bits: float) -> float:
    """Trainings that left the numbers come last."""
    return bits if math.isfinite(bits) else math.inf


def describe_machine(device: str) -> str:
    """Where it was measured."""
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    if device == "cuda":
        return f"{torch.cuda.get_device_name()}; {versions}"
    cores = f"{os.cpu_count()} cores, {torch.get_num_threads()} threads"
    return f"{platform.processor() or platform.machine()}, {cores}; {versions}"
