"""Text and plan of every new kernel as files, for people who asked for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from splat_numba.plain import cause
from splat_numba.runtime.cache import warn_once
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings


def dump(source: KernelSource, description: Mapping[str, Any], settings: Settings) -> None:
    """Write text and plan to SPLAT_DUMP_DIR, if that is set; a warning, where that cannot be."""
    if settings.dump_dir is None:
        return
    try:
        folder = settings.dump_dir.expanduser()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{source.name}.py").write_text(source.text, encoding="utf-8")
        (folder / f"{source.name}.json").write_text(json.dumps(description, indent=2), encoding="utf-8")
    except (OSError, RuntimeError) as error:  # RuntimeError: no home folder
        warn_once(
            f"SPLAT_DUMP_DIR wanted as a folder that can be written, got {str(settings.dump_dir)[:200]!r} "
            f"({cause(error)}): nothing is dumped. Set another one, or unset it."
        )
