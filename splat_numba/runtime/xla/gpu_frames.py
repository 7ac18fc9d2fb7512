"""What the GPU's handler asks of the driver, by address, and where it finds what a program names."""

from __future__ import annotations

from typing import Any

from numba import njit

from splat_numba.runtime.xla import layout
from splat_numba.runtime.xla.frames import start_of
from splat_numba.runtime.xla.words import call, load

_COMPILED = {"nogil": True, "error_model": "numpy"}
STATUS = 0xFFFFFFFF  # of a word that a function returns which gives an int


@njit(**_COMPILED)
def ask(program: int, function: int, arguments: Any) -> Any:
    """Call a function of the driver: its status."""
    return call(load(program + function), arguments) & STATUS


@njit(**_COMPILED)
def address_in(frame: int, program: int, device: int, where: int, slot: int) -> Any:
    """The address of a place (buffer, offset): in a call's array, in one of the device's tables, or in the slot. An
    array without memory is nowhere, at address 0.
    """
    buffer, arguments = load(where), load(program + layout.GPU_ARGUMENTS)
    table = buffer - arguments - load(program + layout.GPU_RESULTS)
    if table < 0:
        start = start_of(frame, buffer, arguments)
    elif table < load(program + layout.GPU_TABLES):
        start = load(load(device + layout.DEVICE_TABLES) + 8 * table)
    else:
        start = slot
    return start + load(where + 8) if start else 0
