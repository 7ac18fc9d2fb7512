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
ERROR_CREATE, ERROR_DESTROY, THREAD_POOL_SCHEDULE = 48, 64, 136
ERROR_MESSAGE, ERROR_CODE, ERROR_SIZE = 16, 24, 28
DESTROYED_ERROR, DESTROY_SIZE = 16, 24
SCHEDULE_CONTEXT, SCHEDULE_TASK, SCHEDULE_DATA, SCHEDULE_SIZE = 16, 24, 32, 40
INVALID_ARGUMENT, RESOURCE_EXHAUSTED, INTERNAL = 3, 8, 13

# A program's, in words: what is called with which arguments, and what it takes for that.
(
    PROGRAM_ARGUMENTS, PROGRAM_RESULTS, PROGRAM_STEPS, PROGRAM_FIRST_STEP, PROGRAM_THREADS, PROGRAM_TASK,
    PROGRAM_MALLOC, PROGRAM_FREE, PROGRAM_YIELD, PROGRAM_WRONG_COUNT, PROGRAM_NO_MEMORY, PROGRAM_WORDS,
) = range(0, 12 * 8, 8)  # fmt: skip
# A step: the function that takes (first, last, block), its items, and the block of its arguments with what is to be
# filled in, (word, buffer, bytes behind its start) each; and the error where it fails, as XLA's function wants it.
(
    STEP_FUNCTION, STEP_ITEMS, STEP_THREADS, STEP_BLOCK, STEP_BLOCK_WORDS, STEP_PLACES, STEP_PLACE_COUNT, STEP_ERROR,
    STEP_BYTES,
) = range(0, 9 * 8, 8)  # fmt: skip
PLACE_WORD, PLACE_BUFFER, PLACE_OFFSET, PLACE_BYTES = range(0, 4 * 8, 8)
# A job: a step that threads are at, followed by its block. Who holds it; the next item; who runs some; the error.
(
    JOB_HOLDERS, JOB_NEXT, JOB_ACTIVE, JOB_ERROR, JOB_ITEMS, JOB_CHUNK, JOB_FUNCTION, JOB_FREE, JOB_BLOCK,
) = range(0, 9 * 8, 8)  # fmt: skip
RANGES_PER_THREAD = 16  # of a step: the last thread to finish is late by at most a 16th of its share
