"""Measured choices on disk: the seconds of every candidate, under a digest of all that they depend on."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from splat_numba.runtime.cache import write_file


@dataclass(frozen=True, slots=True)
class Choices:
    """The file of one choice. names: its candidates."""

    path: Path
    names: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path, facts: Mapping[str, Any], names: tuple[str, ...]) -> Choices:
        """The place in the cache folder for these facts (plain values) and candidates."""
        text = json.dumps({**facts, "candidates": names}, sort_keys=True)
        return cls(folder / f"measured_{hashlib.sha256(text.encode()).hexdigest()[:24]}.json", names)

    def read(self) -> dict[str, float] | None:
        """Seconds by candidate; None where nothing is stored, or what is stored is damaged or of other candidates."""
        try:
            stored = json.loads(self.path.read_text(encoding="utf-8"))
            seconds = {str(name): float(value) for name, value in stored["seconds"].items()}
            whole = stored["sha256"] == _digest(seconds)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
            return None
        sound = all(math.isfinite(value) and value > 0 for value in seconds.values())
        return seconds if whole and sound and tuple(seconds) == self.names else None

    def write(self, seconds: Mapping[str, float]) -> None:
        """Store them; a warning, where that fails."""
        values = {"sha256": _digest(seconds), "seconds": dict(seconds)}
        write_file(self.path, json.dumps(values, indent=1).encode())


def _digest(seconds: Mapping[str, float]) -> str:
    return hashlib.sha256(json.dumps(list(seconds.items())).encode()).hexdigest()
