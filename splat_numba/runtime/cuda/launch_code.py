"""Launches in machine code, whoever wants them: one call from Python for all of a schedule, or XLA's handler.

Asking the driver from Python takes 2 us a launch on a fast host and 10 on a slow one; here it takes what the driver
takes. Records are laid out by `runtime.cuda.launch`. The GIL is released meanwhile, since a full queue makes the driver
wait.
"""

from __future__ import annotations

from typing import Any

from splat_numba.runtime.cuda import launch_layout as layout
from splat_numba.runtime.native import native
from splat_numba.runtime.words import call, load, load_int32, store

STATUS = 0xFFFFFFFF  # of a word that a function returns which gives an int


@native
def address_in(bases: int, where: int) -> Any:
    """The address of a place (buffer, offset). A buffer without memory is nowhere, at address 0."""
    start = load(bases + 8 * load(where))
    return start + load(where + 8) if start else 0


@native
def launch(record: int, bases: int, room: int, stream: int, overlaps: bool, function: int) -> Any:
    """One launch, whose parameters the driver copies: its status. room: for its configuration and two words a
    parameter; function: cuLaunchKernelEx.
    """
    words = load(record + layout.LAUNCH_BLOCK_WORDS)
    template, block = load(record + layout.LAUNCH_BLOCK), room + layout.CONFIG_BYTES
    pointers = block + 8 * words
    for word in range(words):
        store(block + 8 * word, load(template + 8 * word))
        store(pointers + 8 * word, block + 8 * word)
    for number in range(load(record + layout.LAUNCH_PLACE_COUNT)):
        place = load(record + layout.LAUNCH_PLACES) + number * layout.PLACE_BYTES
        store(block + 8 * load(place + layout.PLACE_WORD), address_in(bases, place + layout.PLACE_BUFFER))
    store(room + layout.CONFIG_GRID, load(record + layout.LAUNCH_GRID) | 1 << 32)
    store(room + layout.CONFIG_GRID + 8, 1 | load(record + layout.LAUNCH_THREADS) << 32)
    store(room + layout.CONFIG_GRID + 16, 1 | 1 << 32)
    store(room + layout.CONFIG_SHARED, load(record + layout.LAUNCH_SHARED))
    store(room + layout.CONFIG_STREAM, stream)
    store(room + layout.CONFIG_ATTRIBUTES, room + layout.CONFIG_ATTRIBUTE)
    store(room + layout.CONFIG_COUNT, 1 if overlaps else 0)
    store(room + layout.CONFIG_ATTRIBUTE, layout.OVERLAPS)
    store(room + layout.CONFIG_ATTRIBUTE + layout.ATTRIBUTE_VALUE, 1)
    return call(function, (room, load(record + layout.LAUNCH_FUNCTION), pointers, 0)) & STATUS


@native
def run(given: int, stream: int, asks: int) -> Any:
    """All launches, within the device's context: 0, or a driver's code with the function
    that gave it (REFUSED_BY). With asks none where the stream is captured, and CAPTURED.
    """
    room, context = load(given + layout.RUN_ROOM), load(given + layout.RUN_CONTEXT)
    answer = _asked(given, layout.RUN_CURRENT, (room,))
    elsewhere = not answer and load(room) != context
    if elsewhere:
        answer = _asked(given, layout.RUN_PUSH, (context,))
    if answer:
        return answer
    if asks:
        store(room, 0)
        answer = _asked(given, layout.RUN_CAPTURING, (stream, room))
        if not answer and load_int32(room):
            answer = layout.CAPTURED
    for number in range(load(given + layout.RUN_COUNT)):
        if answer:
            break
        record = load(given + layout.RUN_FIRST) + number * layout.LAUNCH_BYTES
        overlaps = load(record + layout.LAUNCH_OVERLAPS) != 0
        answer = launch(record, load(given + layout.RUN_BASES), room, stream, overlaps, load(given + layout.RUN_LAUNCH))
    if elsewhere:
        call(load(given + layout.RUN_POP), (room,))
    return answer


@native
def _asked(given: int, function: int, arguments: Any) -> Any:
    """What a function of the driver answers, as run() gives it."""
    status = call(load(given + function), arguments) & STATUS
    return status + (function - layout.RUN_LAUNCH) // 8 * layout.REFUSED_BY if status else 0


@native
def encode(first: int, count: int, bases: int, target: int, function: int) -> Any:
    """Write so many tensor maps, one behind the other: the driver's status. function: cuTensorMapEncodeTiled."""
    for number in range(count):
        one = first + number * layout.MAP_RECORD_BYTES
        address = address_in(bases, one + layout.MAP_BUFFER)
        status = call(function, (
            target + 128 * number, load(one + layout.MAP_KIND), layout.MAP_AXES, address, load(one + layout.MAP_SIZES),
            load(one + layout.MAP_STRIDES), load(one + layout.MAP_BOX), load(one + layout.MAP_UNITS),
            load(one + layout.MAP_INTERLEAVE), load(one + layout.MAP_SWIZZLE), load(one + layout.MAP_PROMOTION),
            load(one + layout.MAP_FILL),
        )) & STATUS  # fmt: skip
        if status:
            return status
    return 0
