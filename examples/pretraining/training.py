"""A training for a given time, its loss on held-out text on the way, and stopping and going on."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pretraining.model import Encoder, parameter_groups
from pretraining.setting import Setting
from pretraining.text import Batch, draw
from torch.nn.functional import cross_entropy

BIT = float(np.log(2))


@dataclass(frozen=True, slots=True)
class Task:
    """One training. purpose: "tuning" or "training"; budget: its seconds."""

    purpose: str
    seq: int
    method: str
    seed: int
    rate: float
    budget: float


@dataclass(slots=True)
class Progress:
    """How far a training is. points: (seconds, steps, bits per masked byte) of every evaluation."""

    seconds: float = 0.0
    steps: int = 0
    points: list[tuple[float, int, float]] = field(default_factory=list)
    load: float = 0.0  # the machine's average of waiting processes, as it ended


class Training:
    """A model and its optimizer at work on a task."""

    def __init__(self, task: Task, setting: Setting, text: NDArray[np.uint8], batches: list[Batch]) -> None:
        self.task, self.setting, self.text, self.batches = task, setting, text, batches
        torch.manual_seed(task.seed)
        self.model = Encoder(task.method, task.seq, setting).to(setting.device)
        self.optimizer = torch.optim.AdamW(
            parameter_groups(self.model, task.rate), betas=(0.9, 0.98), fused=setting.device == "cuda"
        )
        warm = setting.warm_up
        # Of steps alone, not of the end: a loss at any time is what that time would have bought.
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: min((step + 1) / warm, (warm / (step + 1)) ** 0.5)
        )
        self.progress = Progress()

    def run(self, until: float) -> bool:
        """Train till the task's time is used, or till time.monotonic() is ``until``. Whether the task is finished."""
        progress, task = self.progress, self.task
        self._warm()
        if not progress.points:
            self._evaluate()
        marks = [task.budget * (at + 1) / self.setting.evaluations for at in range(self.setting.evaluations)]
        for mark in marks[len(progress.points) - 1 :]:
            while progress.seconds < mark:
                if time.monotonic() > until:
                    return False
                begin = self._now()
                self._step()
                progress.seconds += self._now() - begin
                progress.steps += 1
            self._evaluate()
        progress.load = os.getloadavg()[0]
        return True

    def _step(self) -> None:
        key = (self.task.seed, self.progress.steps)
        batch = draw(self.text, self.task.seq, self.setting.tokens // self.task.seq, key, self.setting.device)
        self._loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def _loss(self, batch: Batch) -> torch.Tensor:
        device = self.setting.device
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            return cross_entropy(self.model(batch).float(), batch.answers)

    def _warm(self) -> None:
        """Steps that count nowhere and, with a rate of 0, leave the model as it is: they compile kernels."""
        spare = torch.optim.AdamW(self.model.parameters(), lr=0.0, fused=self.setting.device == "cuda")
        size = self.setting.tokens // self.task.seq
        for _ in range(2):
            self._loss(draw(self.text, self.task.seq, size, (1 << 33,), self.setting.device)).backward()
            spare.step()
        self.optimizer.zero_grad()

    def _evaluate(self) -> None:
        """A point of the curve; its time is not counted."""
        with torch.no_grad():
            losses = [self._loss(batch) for batch in self.batches]
        bits = float(torch.stack(losses).mean()) / BIT
        self.progress.points.append((self.progress.seconds, self.progress.steps, bits))

    def _now(self) -> float:
        """Seconds, once all work is done that was asked for."""
        if self.setting.device == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.setting.clock == "process" else time.perf_counter()

    def save(self, path: Path) -> None:
        """What it takes to go on, in another process."""
        parts = {name: getattr(self, name).state_dict() for name in ("model", "optimizer", "schedule")}
        kept: dict[str, Any] = {**parts, "task": asdict(self.task), "progress": asdict(self.progress)}
        torch.save(kept, path)

    def load(self, path: Path) -> None:
        """Go on from what was saved, if it is of this task."""
        kept = torch.load(path, map_location=self.setting.device, weights_only=True)
        if kept["task"] != asdict(self.task):
            return
        for name in ("model", "optimizer", "schedule"):
            getattr(self, name).load_state_dict(kept[name])
        self.progress = Progress(**kept["progress"])
