"""What a comparison of pretraining is: sizes, times and rates, with presets for a GPU, for CPUs and for tests."""

from __future__ import annotations

from dataclasses import dataclass

METHODS = ("dense", "low_rank", "kernel", "flurka", "none")  # "none" has no attention: what the others add to it


@dataclass(frozen=True, slots=True)
class Setting:
    """All that a result depends on but the text and the machine."""

    device: str  # "cuda" trains in bfloat16 by autocast
    seqs: tuple[int, ...]  # bytes of a sequence; a comparison each
    tokens: int  # bytes of a step, a multiple of every seq
    layers: int
    width: int
    heads: int
    rank: int  # slots of low-rank attention and FLuRKA; divides every seq
    convolution: int  # bytes that a block's convolution sees, odd; 0 for none
    seconds: float  # of training for every method and seed, without evaluations
    seeds: int
    rates: tuple[float, ...]  # learning rates that every method is tried with
    tuning_seconds: float  # of training for every method, rate and tuning seed
    tuning_seeds: int  # over which a rate's loss is meant: one seed chose badly for FLuRKA on a CPU
    warm_up: int  # steps
    held_out: int  # bytes of every evaluation
    evaluations: int  # of a training
    clock: str = "wall"  # "process": seconds of this process's own, which others on a busy machine do not add to


PRESETS = {
    "cuda": Setting(
        device="cuda", seqs=(4096, 16384), tokens=32768, layers=6, width=512, heads=8, rank=256, convolution=5,
        seconds=20.0, seeds=3, rates=(5e-4, 1e-3, 2e-3), tuning_seconds=3.0, tuning_seeds=2, warm_up=100,
        held_out=1 << 18, evaluations=12,
    ),
    "cpu": Setting(
        device="cpu", seqs=(1024,), tokens=2048, layers=4, width=64, heads=2, rank=64, convolution=5,
        seconds=9.0, seeds=3, rates=(3e-3, 1e-2), tuning_seconds=4.0, tuning_seeds=1, warm_up=20,
        held_out=1 << 14, evaluations=6,
    ),
    "ci": Setting(
        device="cpu", seqs=(64,), tokens=128, layers=1, width=32, heads=2, rank=8, convolution=3,
        seconds=0.15, seeds=1, rates=(3e-3, 1e-2), tuning_seconds=0.05, tuning_seeds=2, warm_up=2,
        held_out=256, evaluations=2,
    ),
}  # fmt: skip
