"""XLA's foreign function on NVIDIA GPUs, in machine code: it gives a program's launches to the call's stream.

`runtime.xla.gpu_program` lays a schedule out in memory, which is read only but for what remembers slots. A *slot* is
device memory with the tensor maps and the counters of one set of buffers: it is written once, before anything can read
it, and given away only when the device is idle; one that a graph may read is kept. Whatever else a call has is in
memory of its own, so that calls may overlap.
"""

from __future__ import annotations

from typing import Any

from numba import njit

from splat_numba.runtime.xla import layout
from splat_numba.runtime.xla.frames import error_of, has_so_many, is_question, start_of
from splat_numba.runtime.xla.words import call, fetch_add, load, load_byte, load_int32, store, store_byte

_COMPILED = {"nogil": True, "error_model": "numpy"}
PROBES = 16  # places of a key among the entries
TURNS = 0x1E3779B97F4A7C15  # an odd number whose bits are mixed
STATUS = 0xFFFFFFFF  # of a word that a function returns which gives an int


@njit(**_COMPILED)
def handle(frame: int, program: int) -> Any:
    """What XLA calls: the address of an error, or 0."""
    if is_question(load(frame + layout.EXTENSION), layout.CAPTURABLE):
        return 0
    if load_int32(frame + layout.STAGE) != layout.EXECUTE:
        return 0
    arguments, results = load(program + layout.GPU_ARGUMENTS), load(program + layout.GPU_RESULTS)
    if not has_so_many(frame, arguments, results):
        return error_of(frame, load(program + layout.GPU_WRONG_COUNT))
    if not load(program + layout.GPU_STEPS):
        return 0
    together = 0
    for number in range(arguments + results):
        together |= start_of(frame, number, arguments)
    if together & load(program + layout.GPU_LOOSE_BITS):
        return error_of(frame, load(program + layout.GPU_MISALIGNED))
    job = call(load(program + layout.GPU_MALLOC), (load(program + layout.GPU_JOB_BYTES),))
    if not job:
        return error_of(frame, load(program + layout.GPU_NO_MEMORY))
    error = _run(frame, program, job)
    call(load(program + layout.GPU_FREE), (job,))
    return error


@njit(**_COMPILED)
def _run(frame: int, program: int, job: int) -> Any:
    """All launches, on the call's stream and device: an error of XLA's, or 0."""
    store(job, layout.STREAM_SIZE)
    store(job + layout.EXTENSION, 0)
    store(job + layout.STREAM_CONTEXT, load(frame + layout.CONTEXT))
    store(job + layout.STREAM_FOUND, 0)
    error = call(load(load(frame + layout.API) + layout.STREAM_GET), (job,))
    if error:
        return error
    stream = load(job + layout.STREAM_FOUND)
    device = _device(frame, program, job)
    if not device:
        return error_of(frame, load(program + layout.GPU_NO_DEVICE))
    context = load(device + layout.DEVICE_CONTEXT)
    failed = _ask(program, layout.CU_CURRENT, (job,))
    elsewhere = not failed and load(job) != context
    if elsewhere:
        failed = _ask(program, layout.CU_PUSH, (context,))
    if not failed:
        failed = _launch_all(frame, program, device, job, stream)
        if elsewhere:
            _ask(program, layout.CU_POP, (job,))
    return _refused(frame, program, job, failed) if failed else 0


@njit(**_COMPILED)
def _refused(frame: int, program: int, job: int, status: int) -> Any:
    """An error of XLA's with the driver's code."""
    given, text = load(program + layout.GPU_REFUSED), job + layout.ERROR_SIZE + 4
    message = load(given + layout.ERROR_MESSAGE)
    for place in range(load(program + layout.GPU_REFUSED_BYTES)):
        store_byte(text + place, load_byte(message + place))
    for place in range(layout.DIGITS):
        store_byte(text + layout.DIGITS - 1 - place, 48 + status % 10)
        status //= 10
    for place in range(0, layout.ERROR_SIZE, 8):
        store(job + place, load(given + place))
    store(job + layout.ERROR_MESSAGE, text)
    return error_of(frame, job)


@njit(**_COMPILED)
def _ask(program: int, function: int, arguments: Any) -> Any:
    """Call a function of the driver: its status."""
    return call(load(program + function), arguments) & STATUS


@njit(**_COMPILED)
def _device(frame: int, program: int, room: int) -> Any:
    """The record of the call's device, 0 for one that came after the program."""
    count, first = load(program + layout.GPU_DEVICES), load(program + layout.GPU_FIRST_DEVICE)
    if count == 1:
        return first
    store(room, layout.ORDINAL_SIZE)
    store(room + layout.EXTENSION, 0)
    store(room + layout.ORDINAL_CONTEXT, load(frame + layout.CONTEXT))
    store(room + layout.ORDINAL_FOUND, 0)
    if call(load(load(frame + layout.API) + layout.DEVICE_ORDINAL_GET), (room,)):
        return 0
    ordinal = load_int32(room + layout.ORDINAL_FOUND)
    for number in range(count):
        device = first + number * layout.DEVICE_BYTES
        if load(device + layout.DEVICE_ORDINAL) == ordinal:
            return device
    return 0


@njit(**_COMPILED)
def _launch_all(frame: int, program: int, device: int, job: int, stream: int) -> Any:
    """The driver's status."""
    store(job, 0)
    failed = _ask(program, layout.CU_CAPTURING, (stream, job))
    if failed:
        return failed
    capturing = load_int32(job) != 0
    slot = 0
    if load(program + layout.GPU_SLOT_BYTES):
        lock = device + layout.DEVICE_LOCK  # until all is launched, so that no slot is given away before
        while fetch_add(lock, 1):
            fetch_add(lock, -1)
            call(load(program + layout.GPU_YIELD), (0,))
        slot = _slot(frame, program, device, capturing)
    failed = -slot if slot < 0 else 0
    for number in range(load(program + layout.GPU_STEPS)):
        if failed:
            break
        step = load(program + layout.GPU_FIRST_STEP) + number * layout.LAUNCH_BYTES
        overlaps = not capturing and load(step + layout.LAUNCH_OVERLAPS)
        failed = _launch(frame, program, device, step, job, slot, stream, overlaps)
    if load(program + layout.GPU_SLOT_BYTES):
        fetch_add(device + layout.DEVICE_LOCK, -1)
    return failed


@njit(**_COMPILED)
def _launch(frame: int, program: int, device: int, step: int, job: int, slot: int, stream: int, overlaps: int) -> Any:
    """One launch, whose parameters the driver copies: its status."""
    words = load(step + layout.LAUNCH_BLOCK_WORDS)
    template, block = load(step + layout.LAUNCH_BLOCK), job + layout.CONFIG_BYTES
    pointers = block + 8 * words
    for word in range(words):
        store(block + 8 * word, load(template + 8 * word))
        store(pointers + 8 * word, block + 8 * word)
    for number in range(load(step + layout.LAUNCH_PLACE_COUNT)):
        place = load(step + layout.LAUNCH_PLACES) + number * layout.PLACE_BYTES
        address = _address(frame, program, device, place + layout.PLACE_BUFFER, slot)
        store(block + 8 * load(place + layout.PLACE_WORD), address)
    store(job + layout.CONFIG_GRID, load(step + layout.LAUNCH_GRID) | 1 << 32)
    store(job + layout.CONFIG_GRID + 8, 1 | load(step + layout.LAUNCH_THREADS) << 32)
    store(job + layout.CONFIG_GRID + 16, 1 | 1 << 32)
    store(job + layout.CONFIG_SHARED, load(step + layout.LAUNCH_SHARED))
    store(job + layout.CONFIG_STREAM, stream)
    store(job + layout.CONFIG_ATTRIBUTES, job + layout.CONFIG_ATTRIBUTE)
    store(job + layout.CONFIG_COUNT, 1 if overlaps else 0)
    store(job + layout.CONFIG_ATTRIBUTE, layout.OVERLAPS)
    store(job + layout.CONFIG_ATTRIBUTE + layout.ATTRIBUTE_VALUE, 1)
    return _ask(program, layout.CU_LAUNCH, (job, load(step + layout.LAUNCH_FUNCTION), pointers, 0))


@njit(**_COMPILED)
def _address(frame: int, program: int, device: int, where: int, slot: int) -> Any:
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


@njit(**_COMPILED)
def _slot(frame: int, program: int, device: int, capturing: bool) -> Any:
    """The slot of these buffers, made where it is new; where the driver refuses, its code negated."""
    arguments = load(program + layout.GPU_ARGUMENTS)
    buffers, entries = arguments + load(program + layout.GPU_RESULTS), load(program + layout.GPU_ENTRIES)
    mixed = 0
    for number in range(buffers):
        mixed = (mixed ^ start_of(frame, number, arguments)) * TURNS
        mixed ^= mixed >> 29
    chosen = 0
    for probe in range(PROBES):
        place = (mixed + probe) & (entries - 1)
        entry = load(device + layout.DEVICE_ENTRIES) + place * load(program + layout.GPU_ENTRY_BYTES)
        if not load(entry + layout.ENTRY_SLOT):
            chosen = entry
            break
        if _is_of(frame, entry, buffers, arguments):
            if capturing:
                store(entry + layout.ENTRY_PINNED, 1)
            return load(entry + layout.ENTRY_SLOT)
        if not chosen and not load(entry + layout.ENTRY_PINNED):
            chosen = entry
    return _made(frame, program, device, chosen, buffers, capturing)


@njit(**_COMPILED)
def _is_of(frame: int, entry: int, buffers: int, arguments: int) -> Any:
    """Whether an entry is of these buffers."""
    for number in range(buffers):
        if load(entry + layout.ENTRY_KEY + 8 * number) != start_of(frame, number, arguments):
            return False
    return True


@njit(**_COMPILED)
def _made(frame: int, program: int, device: int, entry: int, buffers: int, capturing: bool) -> Any:
    """A slot with the tensor maps and counters of these buffers. entry: what is to remember it, perhaps in place of
    another, or 0: nobody, since all that could belong to graphs. Returns as _slot().
    """
    arguments = load(program + layout.GPU_ARGUMENTS)
    mode = load(device + layout.DEVICE_STAGING)
    staging = mode + layout.STAGING_HEAD
    store(mode, layout.RELAXED)  # other threads may be capturing, and this one
    failed = _ask(program, layout.CU_MODE, (mode,))
    if failed:
        return -failed
    slot = load(entry + layout.ENTRY_SLOT) if entry else 0
    if slot and (capturing or _ask(program, layout.CU_WAIT, (0,))):
        slot = entry = 0  # in a capture nothing waits
    if not slot:
        slot = _taken(program, device, mode + 8)
    if slot > 0:
        failed = _write(frame, program, device, slot, staging)
        slot = -failed if failed else slot
    _ask(program, layout.CU_MODE, (mode,))
    if slot > 0 and entry:
        for number in range(buffers):
            store(entry + layout.ENTRY_KEY + 8 * number, start_of(frame, number, arguments))
        store(entry + layout.ENTRY_PINNED, 1 if capturing else 0)
        store(entry + layout.ENTRY_SLOT, slot)
    return slot


@njit(**_COMPILED)
def _taken(program: int, device: int, room: int) -> Any:
    """Fresh memory for a slot; where the driver has none, its code negated."""
    size = load(program + layout.GPU_SLOT_BYTES)
    if load(device + layout.DEVICE_END) - load(device + layout.DEVICE_NEXT) < size:
        chunk = load(program + layout.GPU_CHUNK_BYTES)
        failed = _ask(program, layout.CU_ALLOCATE, (room, chunk))
        if failed:
            return -failed
        store(device + layout.DEVICE_NEXT, load(room))
        store(device + layout.DEVICE_END, load(room) + chunk)
    slot = load(device + layout.DEVICE_NEXT)
    store(device + layout.DEVICE_NEXT, slot + size)
    return slot


@njit(**_COMPILED)
def _write(frame: int, program: int, device: int, slot: int, staging: int) -> Any:
    """Fill a slot and wait until it is there. The driver's status."""
    size, stream = load(program + layout.GPU_SLOT_BYTES), load(device + layout.DEVICE_STREAM)
    failed = _encode(frame, program, device, staging)
    if not failed:
        failed = _ask(program, layout.CU_COPY, (slot, staging, size, stream))
    return failed or _ask(program, layout.CU_WAIT_STREAM, (stream,))


@njit(**_COMPILED)
def _encode(frame: int, program: int, device: int, staging: int) -> Any:
    """Write the tensor maps of these buffers; behind them are zeros. The driver's status."""
    for number in range(load(program + layout.GPU_MAPS)):
        one = load(program + layout.GPU_FIRST_MAP) + number * layout.MAP_RECORD_BYTES
        address = _address(frame, program, device, one + layout.MAP_BUFFER, 0)
        failed = _ask(program, layout.CU_ENCODE, (
            staging + 128 * number, load(one + layout.MAP_KIND), 5, address, load(one + layout.MAP_SIZES),
            load(one + layout.MAP_STRIDES), load(one + layout.MAP_BOX), load(one + layout.MAP_UNITS),
            load(one + layout.MAP_INTERLEAVE), load(one + layout.MAP_SWIZZLE), load(one + layout.MAP_PROMOTION),
            load(one + layout.MAP_FILL),
        ))  # fmt: skip
        if failed:
            return failed
    return 0
