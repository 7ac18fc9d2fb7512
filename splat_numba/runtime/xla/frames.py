"""XLA's call frames in machine code: what handlers for any device read of one, and how they answer."""

from __future__ import annotations

from typing import Any

from splat_numba.runtime.native import native
from splat_numba.runtime.words import call, load, load_int32, store_int32
from splat_numba.runtime.xla import layout


@native
def is_question(extension: int, traits: int) -> Any:
    """Whether XLA asks which version of its interface a handler is made for, and what may be done with it; answered."""
    major, minor = layout.VERSION
    asked = False
    while extension:
        if load_int32(extension + layout.EXTENSION_TYPE) == layout.METADATA:
            metadata = load(extension + layout.EXTENSION_METADATA)
            store_int32(metadata + layout.METADATA_MAJOR, major)
            store_int32(metadata + layout.METADATA_MINOR, minor)
            store_int32(metadata + layout.METADATA_TRAITS, traits)
            asked = True
        extension = load(extension + layout.EXTENSION_NEXT)
    return asked


@native
def has_so_many(frame: int, arguments: int, results: int) -> Any:
    """Whether a call has so many arrays."""
    return load(frame + layout.ARGUMENT_COUNT) == arguments and load(frame + layout.RESULT_COUNT) == results


@native
def start_of(frame: int, buffer: int, arguments: int) -> Any:
    """The address of an argument's memory, or behind so many arguments of a result's."""
    if buffer < arguments:
        found = load(load(frame + layout.ARGUMENTS) + 8 * buffer)
    else:
        found = load(load(frame + layout.RESULTS) + 8 * (buffer - arguments))
    return load(found + layout.BUFFER_DATA)


@native
def error_of(frame: int, arguments: int) -> Any:
    """An error of XLA's, from the arguments of the function that makes it: it copies the message."""
    return call(load(load(frame + layout.API) + layout.ERROR_CREATE), (arguments,))
