"""Types of stored numbers by name: their bytes, and what sums of them are kept in."""

from __future__ import annotations

IEEE, TF32 = "ieee", "tf32"  # how products of float32 are made: as exactly as float32 is, or rounded to TF32 first

ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}


def accumulator(dtype: str) -> str:
    """What sums of ``dtype`` are kept in: float64 for float64, float32 for everything else."""
    return "float64" if dtype == "float64" else "float32"
