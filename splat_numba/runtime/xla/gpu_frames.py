"""What the GPU's handler asks of the driver, by address."""

from __future__ import annotations

from typing import Any

from splat_numba.runtime.cuda.launch_code import STATUS
from splat_numba.runtime.native import native
from splat_numba.runtime.words import call, load


@native
def ask(program: int, function: int, arguments: Any) -> Any:
    """Call a function of the driver: its status."""
    return call(load(program + function), arguments) & STATUS
