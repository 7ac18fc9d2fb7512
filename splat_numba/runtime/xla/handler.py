"""XLA's foreign function in machine code: it reads a call frame and runs a program's steps, without Python or its GIL.

`runtime.xla.link` compiles this file's functions and gives them C's way of calling. A program (`runtime.xla.program`)
is read only and serves any number of calls at once: a call has its arguments in jobs of its own. A step's items are
taken by the calling thread and by tasks in XLA's pool, which may come late or never: whoever comes when all items are
taken leaves, and the last one who holds a job frees it.
"""

from __future__ import annotations

from typing import Any

from splat_numba.runtime.cuda import launch_layout
from splat_numba.runtime.native import native
from splat_numba.runtime.words import (
    call,
    fetch_add,
    float_mode,
    keeping_subnormals,
    load,
    load_int32,
    set_float_mode,
    store,
)
from splat_numba.runtime.xla import layout
from splat_numba.runtime.xla.frames import error_of, has_so_many, is_question, start_of


@native
def handle(frame: int, program: int) -> Any:
    """What XLA calls: the address of an error, or 0."""
    if is_question(load(frame + layout.EXTENSION), 0):
        return 0
    if load_int32(frame + layout.STAGE) != layout.EXECUTE:
        return 0
    arguments = load(program + layout.PROGRAM_ARGUMENTS)
    if not has_so_many(frame, arguments, load(program + layout.PROGRAM_RESULTS)):
        return error_of(frame, load(program + layout.PROGRAM_WRONG_COUNT))
    for number in range(load(program + layout.PROGRAM_STEPS)):
        step = load(program + layout.PROGRAM_FIRST_STEP) + number * layout.STEP_BYTES
        job = _prepared(frame, program, step, arguments)
        if not job:
            return error_of(frame, load(program + layout.PROGRAM_NO_MEMORY))
        if _run(frame, program, step, job):
            return error_of(frame, load(step + layout.STEP_ERROR))
    return 0


@native
def assist(job: int) -> Any:
    """A task in XLA's pool: take items of a job, if any are left."""
    fetch_add(job + layout.JOB_ACTIVE, 1)  # before an item is taken: the caller waits for those who are at work
    _work(job)
    fetch_add(job + layout.JOB_ACTIVE, -1)
    _leave(job)
    return 0


@native
def _prepared(frame: int, program: int, step: int, arguments: int) -> Any:
    """A job for a step of this call, with the addresses of its buffers in the block; 0 where there is no memory."""
    words = load(step + layout.STEP_BLOCK_WORDS)
    job = call(load(program + layout.PROGRAM_MALLOC), (layout.JOB_BLOCK + 8 * words,))
    if not job:
        return 0
    template, block = load(step + layout.STEP_BLOCK), job + layout.JOB_BLOCK
    for word in range(words):
        store(block + 8 * word, load(template + 8 * word))
    for number in range(load(step + layout.STEP_PLACE_COUNT)):
        place = load(step + layout.STEP_PLACES) + number * launch_layout.PLACE_BYTES
        buffer = load(place + launch_layout.PLACE_BUFFER)
        address = start_of(frame, buffer, arguments) + load(place + launch_layout.PLACE_OFFSET)
        store(block + 8 * load(place + launch_layout.PLACE_WORD), address)
    return job


@native
def _run(frame: int, program: int, step: int, job: int) -> Any:
    """Run a job to its end, with the pool's help; what a range that failed returned, or 0."""
    items = load(step + layout.STEP_ITEMS)
    threads = min(load(program + layout.PROGRAM_THREADS), load(step + layout.STEP_THREADS), items)
    store(job + layout.JOB_HOLDERS, 1)
    store(job + layout.JOB_NEXT, 0)
    store(job + layout.JOB_ACTIVE, 0)
    store(job + layout.JOB_ERROR, 0)
    store(job + layout.JOB_ITEMS, items)
    store(job + layout.JOB_CHUNK, items if threads < 2 else max(items // (threads * layout.RANGES_PER_THREAD), 1))
    store(job + layout.JOB_FUNCTION, load(step + layout.STEP_FUNCTION))
    store(job + layout.JOB_FREE, load(program + layout.PROGRAM_FREE))
    for _ in range(threads - 1):
        if not _lend(frame, program, job):
            break
    _work(job)
    while fetch_add(job + layout.JOB_ACTIVE, 0):
        call(load(program + layout.PROGRAM_YIELD), (0,))
    error = load(job + layout.JOB_ERROR)
    _leave(job)
    return error


@native
def _lend(frame: int, program: int, job: int) -> Any:
    """Ask XLA's pool for one more thread; whether it has a pool."""
    room = call(load(program + layout.PROGRAM_MALLOC), (layout.SCHEDULE_SIZE,))
    if not room:
        return False
    fetch_add(job + layout.JOB_HOLDERS, 1)
    api = load(frame + layout.API)
    store(room, layout.SCHEDULE_SIZE)
    store(room + layout.EXTENSION, 0)
    store(room + layout.SCHEDULE_CONTEXT, load(frame + layout.CONTEXT))
    store(room + layout.SCHEDULE_TASK, load(program + layout.PROGRAM_TASK))
    store(room + layout.SCHEDULE_DATA, job)
    error = call(load(api + layout.THREAD_POOL_SCHEDULE), (room,))
    if error:
        fetch_add(job + layout.JOB_HOLDERS, -1)
        store(room, layout.DESTROY_SIZE)
        store(room + layout.DESTROYED_ERROR, error)
        call(load(api + layout.ERROR_DESTROY), (room,))
    call(load(program + layout.PROGRAM_FREE), (room,))
    return error == 0


@native
def _work(job: int) -> None:
    """Run ranges until none is left or one has failed.

    XLA's threads take subnormal numbers for 0. Kernels must not: they read float16 by way of them.
    """
    mode = float_mode()
    set_float_mode(keeping_subnormals(mode))
    items, chunk = load(job + layout.JOB_ITEMS), load(job + layout.JOB_CHUNK)
    first = fetch_add(job + layout.JOB_NEXT, chunk)
    while first < items:
        last = min(first + chunk, items)
        error = call(load(job + layout.JOB_FUNCTION), (first, last, job + layout.JOB_BLOCK))
        if error:
            store(job + layout.JOB_ERROR, error)
            fetch_add(job + layout.JOB_NEXT, items)
        first = fetch_add(job + layout.JOB_NEXT, chunk)
    set_float_mode(mode)


@native
def _leave(job: int) -> None:
    """Free the job, if nobody else holds it."""
    if fetch_add(job + layout.JOB_HOLDERS, -1) == 1:
        call(load(job + layout.JOB_FREE), (job,))
