"""XLA's foreign function on NVIDIA GPUs, in machine code: it gives a program's launches to the call's stream.

`runtime.xla.gpu_program` lays a schedule out in memory, which is read only but for what remembers slots (`gpu_slots`).
Whatever else a call has is in memory of its own, so that calls may overlap.
"""

from __future__ import annotations

from typing import Any

from splat_numba.runtime.cuda import launch_layout
from splat_numba.runtime.cuda.launch_code import launch
from splat_numba.runtime.native import native
from splat_numba.runtime.words import call, fetch_add, load, load_byte, load_int32, store, store_byte
from splat_numba.runtime.xla import layout
from splat_numba.runtime.xla.frames import error_of, has_so_many, is_question, start_of
from splat_numba.runtime.xla.gpu_frames import ask
from splat_numba.runtime.xla.gpu_slots import slot_of


@native
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
    for number in range(arguments + results):
        store(job + load(program + layout.GPU_BASES) + 8 * number, start_of(frame, number, arguments))
    error = _run(frame, program, job)
    call(load(program + layout.GPU_FREE), (job,))
    return error


@native
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
    failed = ask(program, layout.CU_CURRENT, (job,))
    elsewhere = not failed and load(job) != context
    if elsewhere:
        failed = ask(program, layout.CU_PUSH, (context,))
    if not failed:
        failed = _launch_all(program, device, job, stream)
        if elsewhere:
            ask(program, layout.CU_POP, (job,))
    return _refused(frame, program, job, failed) if failed else 0


@native
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


@native
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


@native
def _launch_all(program: int, device: int, job: int, stream: int) -> Any:
    """The driver's status."""
    store(job, 0)
    failed = ask(program, layout.CU_CAPTURING, (stream, job))
    if failed:
        return failed
    capturing = load_int32(job) != 0
    bases = job + load(program + layout.GPU_BASES)
    after = bases + 8 * (load(program + layout.GPU_ARGUMENTS) + load(program + layout.GPU_RESULTS))
    for number in range(load(program + layout.GPU_TABLES)):
        store(after, load(load(device + layout.DEVICE_TABLES) + 8 * number))
        after += 8
    slot = 0
    if load(program + layout.GPU_SLOT_BYTES):
        # A call's turn lasts until all is launched, so that no slot is given away before. Turns come as the calls did:
        # of many that try until nobody else does, none might ever be alone.
        turn = fetch_add(device + layout.DEVICE_COME, 1)
        while fetch_add(device + layout.DEVICE_GONE, 0) != turn:
            call(load(program + layout.GPU_YIELD), (0,))
        slot = slot_of(bases, program, device, capturing)
    store(after, slot)
    failed = -slot if slot < 0 else 0
    for number in range(load(program + layout.GPU_STEPS)):
        if failed:
            break
        record = load(program + layout.GPU_FIRST_STEP) + number * launch_layout.LAUNCH_BYTES
        overlaps = not capturing and load(record + launch_layout.LAUNCH_OVERLAPS) != 0
        failed = launch(record, bases, job, stream, overlaps, load(program + layout.CU_LAUNCH))
    if load(program + layout.GPU_SLOT_BYTES):
        fetch_add(device + layout.DEVICE_GONE, 1)
    return failed
