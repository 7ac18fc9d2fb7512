"""Where things stand, in bytes: in XLA's structs, as its header xla/ffi/api/c_api.h has them, and in our programs.

XLA promises to serve an interface's version for a year after the next one. We say that ours is 0.1, the oldest, whose
fields are where they are in all later ones; tests compare the numbers with the header that jax brings.
"""

from __future__ import annotations

# XLA's. CallFrame and what it holds.
EXTENSION = 8
API = 16
CONTEXT = 24
STAGE = 32
ARGUMENT_COUNT, ARGUMENTS = 56, 72
RESULT_COUNT, RESULTS = 96, 112
BUFFER_DATA = 24
EXECUTE = 3  # the stage
# Its extensions, and what the one of METADATA asks for.
EXTENSION_TYPE, EXTENSION_NEXT, EXTENSION_METADATA = 8, 16, 24
METADATA = 1
METADATA_MAJOR, METADATA_MINOR, METADATA_TRAITS = 24, 28, 32
VERSION = (0, 1)
# The table of XLA's functions, and their arguments, which begin with their own size.
ERROR_CREATE, ERROR_DESTROY, STREAM_GET, THREAD_POOL_SCHEDULE, DEVICE_ORDINAL_GET = 48, 64, 80, 136, 184
ERROR_MESSAGE, ERROR_CODE, ERROR_SIZE = 16, 24, 28
DESTROYED_ERROR, DESTROY_SIZE = 16, 24
SCHEDULE_CONTEXT, SCHEDULE_TASK, SCHEDULE_DATA, SCHEDULE_SIZE = 16, 24, 32, 40
STREAM_CONTEXT, STREAM_FOUND, STREAM_SIZE = 16, 24, 32
ORDINAL_CONTEXT, ORDINAL_FOUND, ORDINAL_SIZE = 16, 24, 28
CAPTURABLE = 1  # of a handler's traits: that what it gives a stream may be captured in a graph
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 3, 8, 13

# A program's, in words: what is called with which arguments, and what it takes for that.
(
    PROGRAM_ARGUMENTS, PROGRAM_RESULTS, PROGRAM_STEPS, PROGRAM_FIRST_STEP, PROGRAM_THREADS, PROGRAM_TASK,
    PROGRAM_MALLOC, PROGRAM_FREE, PROGRAM_YIELD, PROGRAM_WRONG_COUNT, PROGRAM_NO_MEMORY, PROGRAM_WORDS,
) = range(0, 12 * 8, 8)  # fmt: skip
# A step: the function that takes (first, last, block), its items, and the block of its arguments with what is to be
# filled in, a place of runtime.cuda.launch_layout each; and the error where it fails, as XLA's function wants it.
(
    STEP_FUNCTION, STEP_ITEMS, STEP_THREADS, STEP_BLOCK, STEP_BLOCK_WORDS, STEP_PLACES, STEP_PLACE_COUNT, STEP_ERROR,
    STEP_BYTES,
) = range(0, 9 * 8, 8)  # fmt: skip
# A job: a step that threads are at, followed by its block. Who holds it; the next item; who runs some; the error.
(
    JOB_HOLDERS, JOB_NEXT, JOB_ACTIVE, JOB_ERROR, JOB_ITEMS, JOB_CHUNK, JOB_FUNCTION, JOB_FREE, JOB_BLOCK,
) = range(0, 9 * 8, 8)  # fmt: skip
RANGES_PER_THREAD = 16  # of a step: the last thread to finish is late by at most a 16th of its share

# A program of launches on GPUs (runtime.cuda.launch_layout), in words: of a call what is above, and where in its own
# memory the addresses of buffers stand, tables' and the slot's after the call's; all that a driver is asked; a record a
# device.
(
    GPU_ARGUMENTS, GPU_RESULTS, GPU_STEPS, GPU_FIRST_STEP, GPU_MALLOC, GPU_FREE, GPU_YIELD, GPU_JOB_BYTES,
    GPU_BASES, GPU_LOOSE_BITS, GPU_DEVICES, GPU_FIRST_DEVICE, GPU_TABLES,
    GPU_MAPS, GPU_FIRST_MAP, GPU_SLOT_BYTES, GPU_CHUNK_BYTES, GPU_ENTRIES, GPU_ENTRY_BYTES,
    GPU_WRONG_COUNT, GPU_NO_MEMORY, GPU_NO_DEVICE, GPU_MISALIGNED, GPU_REFUSED, GPU_REFUSED_BYTES,
    CU_LAUNCH, CU_CAPTURING, CU_CURRENT, CU_PUSH, CU_POP, CU_WAIT, CU_ALLOCATE, CU_COPY, CU_WAIT_STREAM, CU_MODE,
    CU_ENCODE, GPU_WORDS,
) = range(0, 37 * 8, 8)  # fmt: skip
DIGITS = 3  # of a driver's code, with which the message of GPU_REFUSED begins
# A device: XLA's number of it, its context, a stream of ours, the addresses of its tables, and what remembers slots:
# how many calls have come and how many have gone, by which they take turns; the rest of the last chunk of memory, a
# place on the host where a slot is written, and the entries.
(
    DEVICE_ORDINAL, DEVICE_CONTEXT, DEVICE_STREAM, DEVICE_TABLES, DEVICE_COME, DEVICE_GONE, DEVICE_NEXT, DEVICE_END,
    DEVICE_STAGING, DEVICE_ENTRIES, DEVICE_BYTES,
) = range(0, 11 * 8, 8)  # fmt: skip
STAGING_HEAD = 64  # bytes in front of where a slot is written, and its alignment, which is that of tensor maps
# What remembers a slot: where it is, whether a graph may read it, and then the addresses of a call's buffers.
ENTRY_SLOT, ENTRY_PINNED, ENTRY_KEY = range(0, 3 * 8, 8)
RELAXED = 2  # CU_STREAM_CAPTURE_MODE_RELAXED
