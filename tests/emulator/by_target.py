"""Cases of the targets whose texts read by address, `simt` and `sm80`: one table, a dtype a target."""

from dataclasses import replace

import pytest

TYPES = {"simt": ("float32", "float64", "float16"), "sm80": ("float16", "bfloat16")}


def both(problem, sm80, simt="float32"):
    """The problem in a dtype of each target."""
    return {"simt": replace(problem, dtype=simt), "sm80": replace(problem, dtype=sm80)}


def of_targets(named):
    """Parameters (target, what) from values by target, by name."""
    return [pytest.param(key, one, id=f"{key}-{name}") for name, of in named.items() for key, one in of.items()]
