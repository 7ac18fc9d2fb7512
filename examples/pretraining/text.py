"""Text as bytes, and sequences of it with masked bytes: the same ones for every method, whenever a step is taken."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pretraining.setting import Setting

MASK = 256  # the number that stands for a byte to be told
MASKED = 0.15  # share of bytes, as in BERT; all of them become MASK
OTHERS = {"site-packages", "test", "tests"}  # parts of the library's folder that are not its modules


@dataclass(frozen=True, slots=True)
class Text:
    """Three parts that share no byte: to train with, to choose learning rates with, and to report on."""

    training: NDArray[np.uint8]
    tuning: NDArray[np.uint8]
    reported: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Batch:
    """tokens: (batch, seq), int64, MASK at places; places: (masked,), into flat tokens; answers: what was there."""

    tokens: torch.Tensor
    places: torch.Tensor
    answers: torch.Tensor


def read_text(files: Iterable[Path] = ()) -> Text:
    """The files one after the other, or without any the standard library's modules in an order drawn once.

    Of the whole the last tenth is held out: its first half for tuning, its second half to report on.
    """
    chosen = list(files)
    if not chosen:
        library = Path(sysconfig.get_path("stdlib"))
        found = sorted(path for path in library.rglob("*.py") if not OTHERS & set(path.relative_to(library).parts))
        chosen = [found[at] for at in np.random.default_rng(0).permutation(len(found))]
    whole = np.frombuffer(b"".join(path.read_bytes() for path in chosen), np.uint8)
    training, tuning, reported = np.split(whole, [len(whole) * 18 // 20, len(whole) * 19 // 20])
    return Text(training, tuning, reported)


def draw(text: NDArray[np.uint8], seq: int, size: int, key: tuple[int, ...], device: str) -> Batch:
    """``size`` sequences from random places; ``key`` alone decides which, so that a training may stop and go on."""
    if len(text) <= seq:
        raise SystemExit(f"--text wanted with more than {20 * seq:,} bytes, got a held-out part of {len(text):,}.")
    rng = np.random.default_rng(key)
    starts = rng.integers(0, len(text) - seq, size)
    tokens = np.stack([text[start : start + seq] for start in starts]).astype(np.int64)
    masked = max(1, round(MASKED * seq))
    places = np.argpartition(rng.random((size, seq)), masked, axis=1)[:, :masked] + seq * np.arange(size)[:, None]
    flat, chosen = tokens.reshape(-1), places.reshape(-1)
    answers = flat[chosen]
    flat[chosen] = MASK
    return Batch(*(torch.from_numpy(one).to(device) for one in (tokens, chosen, answers)))


def held_out(text: NDArray[np.uint8], seq: int, setting: Setting) -> list[Batch]:
    """The batches of every evaluation, each as large as a step's: kernels compiled for those serve here too."""
    count = max(1, setting.held_out // setting.tokens)
    return [draw(text, seq, setting.tokens // seq, (1 << 32, at), setting.device) for at in range(count)]


def alone(text: Text, batches: list[Batch]) -> float:
    """Bits per masked byte of who knows how often each byte stands in the training part, and looks at nothing."""
    often = np.bincount(text.training, minlength=256) + 1.0
    bits = -np.log2(often / often.sum())
    answers = torch.cat([batch.answers for batch in batches]).cpu().numpy()
    return float(bits[answers].mean())
