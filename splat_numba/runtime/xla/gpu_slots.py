"""Slots in machine code: device memory with the tensor maps and the counters of one set of buffers.

A slot is written once, before anything can read it, and given away only when the device is idle; one that a graph may
read is kept. The caller has the device's lock until what reads the slot is launched.
"""

from __future__ import annotations

from typing import Any

from splat_numba.runtime.cuda.launch_code import encode
from splat_numba.runtime.native import native
from splat_numba.runtime.words import load, store
from splat_numba.runtime.xla import layout
from splat_numba.runtime.xla.gpu_frames import ask

NOWHERE = -1  # no buffer's address
PROBES = 16  # places of a key among the entries
TURNS = 0x1E3779B97F4A7C15  # an odd number whose bits are mixed


@native
def slot_of(bases: int, program: int, device: int, capturing: bool) -> Any:
    """The slot of these buffers, made where it is new; where the driver refuses, its code negated."""
    buffers = load(program + layout.GPU_ARGUMENTS) + load(program + layout.GPU_RESULTS)
    entries = load(program + layout.GPU_ENTRIES)
    mixed = 0
    for number in range(buffers):
        mixed = (mixed ^ load(bases + 8 * number)) * TURNS
        mixed ^= mixed >> 29
    chosen = 0
    for probe in range(PROBES):
        place = (mixed + probe) & (entries - 1)
        entry = load(device + layout.DEVICE_ENTRIES) + place * load(program + layout.GPU_ENTRY_BYTES)
        if not load(entry + layout.ENTRY_SLOT):
            chosen = entry
            break
        if _is_of(bases, entry, buffers):
            if capturing:
                store(entry + layout.ENTRY_PINNED, 1)
            return load(entry + layout.ENTRY_SLOT)
        if not chosen and not load(entry + layout.ENTRY_PINNED):
            chosen = entry
    return _made(bases, program, device, chosen, buffers, capturing)


@native
def _is_of(bases: int, entry: int, buffers: int) -> Any:
    """Whether an entry is of these buffers."""
    for number in range(buffers):  # noqa: SIM110 - Numba compiles no generators
        if load(entry + layout.ENTRY_KEY + 8 * number) != load(bases + 8 * number):
            return False
    return True


@native
def _made(bases: int, program: int, device: int, entry: int, buffers: int, capturing: bool) -> Any:
    """A slot with the tensor maps and counters of these buffers. entry: what is to remember it, perhaps in place of
    another, or 0: nobody, since all that could belong to graphs. Returns as slot_of().
    """
    mode = load(device + layout.DEVICE_STAGING)
    staging = mode + layout.STAGING_HEAD
    store(mode, layout.RELAXED)  # other threads may be capturing, and this one
    failed = ask(program, layout.CU_MODE, (mode,))
    if failed:
        return -failed
    slot = load(entry + layout.ENTRY_SLOT) if entry else 0
    if slot and (capturing or ask(program, layout.CU_WAIT, (0,))):
        slot = entry = 0  # in a capture nothing waits
    if slot:
        store(entry + layout.ENTRY_KEY, NOWHERE)  # a write that fails may leave half of it
    if not slot:
        slot = _taken(program, device, mode + 8)
    if slot > 0:
        failed = _write(bases, program, device, slot, staging)
        slot = -failed if failed else slot
    ask(program, layout.CU_MODE, (mode,))
    if slot > 0 and entry:
        for number in range(buffers):
            store(entry + layout.ENTRY_KEY + 8 * number, load(bases + 8 * number))
        store(entry + layout.ENTRY_PINNED, 1 if capturing else 0)
        store(entry + layout.ENTRY_SLOT, slot)
    return slot


@native
def _taken(program: int, device: int, room: int) -> Any:
    """Fresh memory for a slot; where the driver has none, its code negated."""
    size = load(program + layout.GPU_SLOT_BYTES)
    if load(device + layout.DEVICE_END) - load(device + layout.DEVICE_NEXT) < size:
        chunk = load(program + layout.GPU_CHUNK_BYTES)
        failed = ask(program, layout.CU_ALLOCATE, (room, chunk))
        if failed:
            return -failed
        store(device + layout.DEVICE_NEXT, load(room))
        store(device + layout.DEVICE_END, load(room) + chunk)
    slot = load(device + layout.DEVICE_NEXT)
    store(device + layout.DEVICE_NEXT, slot + size)
    return slot


@native
def _write(bases: int, program: int, device: int, slot: int, staging: int) -> Any:
    """Fill a slot and wait until it is there. The driver's status."""
    size, stream = load(program + layout.GPU_SLOT_BYTES), load(device + layout.DEVICE_STREAM)
    first, count = load(program + layout.GPU_FIRST_MAP), load(program + layout.GPU_MAPS)
    failed = encode(first, count, bases, staging, load(program + layout.CU_ENCODE))  # behind the maps are zeros
    if not failed:
        failed = ask(program, layout.CU_COPY, (slot, staging, size, stream))
    return failed or ask(program, layout.CU_WAIT_STREAM, (stream,))
