"""Where things stand, in bytes, in the records from which `runtime.cuda.launch_code` launches kernels."""

from __future__ import annotations

# A launch: the kernel, its shape, and a word a parameter, the block, with places to be filled in.
(
    LAUNCH_FUNCTION, LAUNCH_GRID, LAUNCH_THREADS, LAUNCH_SHARED, LAUNCH_OVERLAPS, LAUNCH_BLOCK, LAUNCH_BLOCK_WORDS,
    LAUNCH_PLACES, LAUNCH_PLACE_COUNT, LAUNCH_BYTES,
) = range(0, 10 * 8, 8)  # fmt: skip
# A place: the number of a word of the block, of the buffer whose address it gets, and bytes behind that.
PLACE_WORD, PLACE_BUFFER, PLACE_OFFSET, PLACE_BYTES = range(0, 4 * 8, 8)
# A run of launches of one device: its context, how many they are, the records, the addresses of the buffers, room for
# what the driver is given, and functions of the driver.
(
    RUN_CONTEXT, RUN_COUNT, RUN_FIRST, RUN_BASES, RUN_ROOM, RUN_LAUNCH, RUN_CAPTURING, RUN_CURRENT, RUN_PUSH, RUN_POP,
    RUN_WORDS,
) = range(0, 11 * 8, 8)  # fmt: skip
REFUSED_BY = 1 << 32  # a driver's code in an answer, times this the number of its function from RUN_LAUNCH on
CAPTURED = -1  # what a run answers that has launched nothing, since the stream's work goes into a graph
# A tensor map: what cuTensorMapEncodeTiled is given, and of which buffer it is.
(
    MAP_KIND, MAP_BUFFER, MAP_OFFSET, MAP_SIZES, MAP_STRIDES, MAP_BOX, MAP_UNITS, MAP_INTERLEAVE, MAP_SWIZZLE,
    MAP_PROMOTION, MAP_FILL, MAP_RECORD_BYTES,
) = range(0, 12 * 8, 8)  # fmt: skip
MAP_AXES = 5
MAP_ALIGNMENT = 64  # of where one is encoded
# The driver's: CUlaunchConfig with one CUlaunchAttribute behind it, before the parameters.
CONFIG_GRID, CONFIG_SHARED, CONFIG_STREAM, CONFIG_ATTRIBUTES, CONFIG_COUNT, CONFIG_ATTRIBUTE = 0, 24, 32, 40, 48, 56
ATTRIBUTE_VALUE = 8
CONFIG_BYTES = 128
OVERLAPS = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
