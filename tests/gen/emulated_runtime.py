"""The vocabulary of generated CPU kernels in NumPy, so that their text runs as ordinary Python.

A pointer knows the allocation that it points into, and refuses to read or write outside of it: machine code would not.
Memory that a kernel makes itself starts as NaN (integers: far below zero), so that reading it before writing it shows.
Vectors are NumPy arrays of WIDTH numbers, register tiles and squares are tuples of them, as in the real modules.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np

from splat_numba.gen.plan import Plan
from splat_numba.runtime.compile import Compiled
from splat_numba.runtime.launch import render

VECTORS = 2


class OutOfBoundsError(AssertionError):
    """A kernel touched memory outside the array that its pointer came from."""


@dataclass(frozen=True, slots=True)
class Pointer:
    """memory[place:] of a whole allocation, as a flat array."""

    memory: np.ndarray
    place: int

    def span(self, offset: int, count: int) -> slice:
        start = int(self.place + offset)
        if not 0 <= start <= start + count <= self.memory.size:
            raise OutOfBoundsError(f"elements {start} to {start + count} of {self.memory.size}")
        return slice(start, start + count)


def address(array: np.ndarray, offset: int) -> Pointer:
    whole = array
    while isinstance(whole.base, np.ndarray):
        whole = whole.base
    memory = whole.reshape(-1, copy=False).view(array.dtype)
    shift = array.__array_interface__["data"][0] - memory.__array_interface__["data"][0]
    return Pointer(memory, shift // array.itemsize + int(offset))


def advance(pointer: Pointer, offset: int) -> Pointer:
    return Pointer(pointer.memory, pointer.place + int(offset))


def element(pointer: Pointer, offset: int) -> Any:
    return pointer.memory[pointer.span(offset, 1)][0]


def assign(pointer: Pointer, offset: int, value: Any) -> None:
    _write(pointer, offset, np.asarray(value, pointer.memory.dtype)[None])


def _write(pointer: Pointer, offset: int, values: np.ndarray) -> None:
    if not pointer.memory.flags.writeable:
        raise OutOfBoundsError("a write to an input")
    pointer.memory[pointer.span(offset, values.size)] = values


def _read(pointer: Pointer, offset: int, count: int) -> np.ndarray:
    return pointer.memory[pointer.span(offset, count)].copy()


def shaped(dtype: str, width: int) -> tuple[Callable[..., Any], ...]:
    lanes = np.arange(width)

    def splat(value: Any) -> np.ndarray:
        return np.full(width, value, dtype)

    def inside(low: Pointer, high: Pointer, offset: int, value: int) -> np.ndarray:
        return (_read(low, offset, width) <= value) & (value < _read(high, offset, width))

    def bits(word: Any, offset: int) -> np.ndarray:
        return (int(word) >> (int(offset) + lanes).astype(object)) % 2 == 1

    return lambda pointer, offset: _read(pointer, offset, width), splat, inside, bits


def transpose(rows: Sequence[np.ndarray]) -> tuple[np.ndarray, ...]:
    return tuple(np.stack(rows).T.copy())


def power_of_two(exponent: np.ndarray) -> np.ndarray:
    assert (exponent == np.floor(exponent)).all()
    assert (exponent >= np.finfo(exponent.dtype).minexp).all()  # of normal numbers only
    return np.ldexp(np.ones_like(exponent), exponent.astype(np.int32))


def multiply_add(tile: Any, left: Pointer, left_step: int, right: Pointer) -> tuple[np.ndarray, ...]:
    width = tile[0].size
    lanes = [_read(right, v * width, width) for v in range(VECTORS)]
    return tuple(element(left, at // VECTORS * left_step) * lanes[at % VECTORS] + part for at, part in enumerate(tile))


def load_scaled(like: Any, source: Pointer, step: int, factor: Pointer) -> tuple[np.ndarray, ...]:
    width = like[0].size
    factors = [_read(factor, v * width, width) for v in range(VECTORS)]
    places = [divmod(at, VECTORS) for at in range(len(like))]
    return tuple(_read(source, row * step + v * width, width) * factors[v] for row, v in places)


def store_tile(tile: Any, target: Pointer, step: int) -> None:
    for at, part in enumerate(tile):
        row, v = divmod(at, VECTORS)
        _write(target, row * step + v * part.size, part)


def gather_rows(like: Any, source: Pointer, row_stride: int, rows: Pointer, lane: int) -> tuple[np.ndarray, ...]:
    places = [element(rows, lane + i) for i in range(len(like))]
    first = element(rows, 0)
    return tuple(_read(source, (row if row >= 0 else first) * row_stride, like[0].size) for row in places)


def scatter_rows(square: Any, target: Pointer, row_stride: int, rows: Pointer, lane: int) -> None:
    for i, part in enumerate(square):
        row = element(rows, lane + i)
        if row >= 0:
            _write(target, row * row_stride, part)


def load_each(like: Any, source: Pointer, step: int) -> tuple[np.ndarray, ...]:
    return tuple(_read(source, i * step, part.size) for i, part in enumerate(like))


def store_each(square: Any, target: Pointer, step: int) -> None:
    for i, part in enumerate(square):
        _write(target, i * step, part)


def times(square: Any, factor: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(part * factor for part in square)


def times_or_zero(square: Any, factor: np.ndarray) -> tuple[np.ndarray, ...]:
    return tuple(np.where(factor == 0, part.dtype.type(0), part * factor) for part in square)


def _to_half(dtype: Any) -> Callable[[Any], np.uint16]:
    return lambda value: np.asarray(value, np.float32).astype(dtype).view(np.uint16)[()]


def _from_half(dtype: Any) -> Callable[[Any], np.float32]:
    return lambda half: np.asarray(half, np.uint16).view(dtype).astype(np.float32)[()]


def _modules() -> dict[str, Any]:
    import ml_dtypes

    names = ("float32", "float64", "int32", "int64", "inf", "finfo")
    numpy = SimpleNamespace(**{name: getattr(np, name) for name in names})
    numpy.empty = lambda size, dtype: np.full(size, np.nan if np.issubdtype(dtype, np.floating) else -(2**31), dtype)
    ours = {
        "halves": {
            "from_float16": _from_half(np.float16),
            "to_float16": _to_half(np.float16),
            "from_bfloat16": _from_half(ml_dtypes.bfloat16),
            "to_bfloat16": _to_half(ml_dtypes.bfloat16),
        },
        "simd": {"address": address, "advance": advance, "assign": assign, "element": element},
        "vectors": {
            "floor": np.floor,
            "fma": lambda a, b, c: a * b + c,
            "maximum": lambda a, b: np.where(a > b, a, b),
            "power_of_two": power_of_two,
            "select": np.where,
            "shaped": shaped,
            "store": _write,
            "transpose": transpose,
        },
        "tiles": {
            "gather_rows": gather_rows,
            "load_each": load_each,
            "load_scaled": load_scaled,
            "multiply_add": multiply_add,
            "scatter_rows": scatter_rows,
            "store_each": store_each,
            "store_tile": store_tile,
            "times": times,
            "times_or_zero": times_or_zero,
        },
    }
    modules = {f"splat_numba.runtime.{name}": SimpleNamespace(**members) for name, members in ours.items()}
    math = SimpleNamespace(log=np.log)  # 0 gives -inf, as with Numba's error_model="numpy"
    numba = SimpleNamespace(njit=lambda **_: lambda function: function)
    return modules | {"numpy": numpy, "numba": numba, "math": math}


def emulate(plan: Plan) -> Compiled:
    """The plan's kernel as Python functions; every import of its text is answered from this file."""
    modules = _modules()
    source = render(plan)
    names = {"__builtins__": vars(builtins) | {"__import__": lambda name, *_: modules[name]}}
    exec(compile(source.text, f"<emulated {source.name}>", "exec"), names)  # noqa: S102 - the text is our own

    def quiet(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            with np.errstate(all="ignore"):
                return function(*arguments)

        return call

    functions = {f"pass_{number}": quiet(names[f"pass_{number}"]) for number in range(len(plan.passes))}
    return Compiled(source, None, functions, cached=False)
