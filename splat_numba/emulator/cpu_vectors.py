"""The vocabulary of generated CPU functions in NumPy: vectors are arrays of WIDTH numbers, register tiles and squares
are tuples of them, as in runtime.vectors, tiles, lanes and halves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.emulator.cpu_memory import Pointer, address, advance, assign, element, store
from splat_numba.errors import EmulationError
from splat_numba.gen.language.halves import narrow, widen

VECTORS = 2  # of a register tile's row
Vector = NDArray[Any]
Vectors = Sequence[Vector]


def shaped(dtype: str, width: int) -> tuple[Callable[..., Any], ...]:
    """load, splat, inside and bits of one vector type."""
    lanes = np.arange(width)

    def load(pointer: Pointer, offset: int) -> Vector:
        return pointer.read(offset, width)

    def splat(value: Any) -> Vector:
        return np.full(width, value, dtype)

    def inside(low: Pointer, high: Pointer, offset: int, value: int) -> Vector:
        return (low.read(offset, width) <= value) & (value < high.read(offset, width))

    def bits(word: Any, offset: int) -> Any:
        return (int(word) >> (int(offset) + lanes).astype(object)) % 2 == 1

    return load, splat, inside, bits


def reader(dtype: str, width: int, count: int, contiguous: bool) -> Callable[[Pointer, int, int], Vector]:
    """read(pointer, offset, stride): ``count`` stored numbers in the compute type, then zeros."""

    def read(pointer: Pointer, offset: int, stride: int) -> Vector:
        step = 1 if contiguous else stride
        found = [element(pointer, (offset + lane) * step) for lane in range(count)]
        numbers = widen(np.array(found, pointer.memory.dtype), dtype)
        return np.concatenate([numbers, np.zeros(width - count, numbers.dtype)])

    return read


def part_writer(_dtype: str, _width: int, first: int, count: int) -> Callable[[Pointer, int, Vector], None]:
    """Some of a vector's lanes, written side by side."""
    return lambda pointer, offset, a: pointer.write(offset, a[first : first + count])


def reductions(_dtype: str, _width: int) -> tuple[Callable[..., Any], ...]:
    """add_lanes, largest_lane and add_each."""
    return np.sum, np.max, lambda vectors: np.array([one.sum() for one in vectors], vectors[0].dtype)


def transpose(rows: Vectors) -> tuple[Vector, ...]:
    """Of a square."""
    return tuple(np.stack(rows).T.copy())


def power_of_two(exponent: Vector) -> Vector:
    """Of whole exponents that give normal numbers. Raises EmulationError for others."""
    if (exponent != np.floor(exponent)).any() or (exponent < np.finfo(exponent.dtype).minexp).any():
        raise EmulationError(f"whole exponents of normal numbers wanted, got {exponent}")
    return np.ldexp(np.ones_like(exponent), exponent.astype(np.int32))


def multiply_add(tile: Vectors, left: Pointer, left_step: int, right: Pointer) -> tuple[Vector, ...]:
    """A register tile plus a column of numbers times a row of vectors."""
    width = tile[0].size
    lanes = [right.read(v * width, width) for v in range(VECTORS)]
    return tuple(element(left, at // VECTORS * left_step) * lanes[at % VECTORS] + part for at, part in enumerate(tile))


def load_scaled(like: Vectors, source: Pointer, step: int, factor: Pointer) -> tuple[Vector, ...]:
    """A register tile from memory, lane by lane times a factor."""
    width = like[0].size
    factors = [factor.read(v * width, width) for v in range(VECTORS)]
    places = [divmod(at, VECTORS) for at in range(len(like))]
    return tuple(source.read(row * step + v * width, width) * factors[v] for row, v in places)


def store_tile(tile: Vectors, target: Pointer, step: int) -> None:
    """A register tile to memory."""
    for at, part in enumerate(tile):
        row, v = divmod(at, VECTORS)
        target.write(row * step + v * part.size, part)


def add_tile(tile: Vectors, target: Pointer, step: int) -> None:
    """A register tile onto what is in memory."""
    for at, part in enumerate(tile):
        row, v = divmod(at, VECTORS)
        _add(part, target, row * step + v * part.size)


def add_listed(tile: Vectors, target: Pointer, step: int, rows: Pointer) -> None:
    """The same, onto listed rows."""
    for at, part in enumerate(tile):
        row, v = divmod(at, VECTORS)
        _add(part, target, element(rows, row) * step + v * part.size)


def _add(part: Vector, target: Pointer, place: int) -> None:
    target.write(place, target.read(place, part.size) + part)


def gather_rows(like: Vectors, source: Pointer, row_stride: int, rows: Pointer, lane: int) -> tuple[Vector, ...]:
    """A square of listed rows, the first one in place of those that are not there."""
    places = [element(rows, lane + i) for i in range(len(like))]
    first = element(rows, 0)
    return tuple(source.read((row if row >= 0 else first) * row_stride, like[0].size) for row in places)


def scatter_rows(square: Vectors, target: Pointer, row_stride: int, rows: Pointer, lane: int) -> None:
    """A square to the listed rows that are there."""
    for i, part in enumerate(square):
        row = element(rows, lane + i)
        if row >= 0:
            target.write(row * row_stride, part)


def load_each(like: Vectors, source: Pointer, step: int) -> tuple[Vector, ...]:
    """A square from rows that are ``step`` apart."""
    return tuple(source.read(i * step, part.size) for i, part in enumerate(like))


def store_each(square: Vectors, target: Pointer, step: int) -> None:
    """A square to rows that are ``step`` apart."""
    for i, part in enumerate(square):
        target.write(i * step, part)


def times(square: Vectors, factor: Vector) -> tuple[Vector, ...]:
    """Each vector times a factor, lane by lane."""
    return tuple(part * factor for part in square)


def times_or_zero(square: Vectors, factor: Vector) -> tuple[Vector, ...]:
    """The same, exactly 0 where the factor is."""
    return tuple(np.where(factor == 0, part.dtype.type(0), part * factor) for part in square)


def _to_half(dtype: str) -> Callable[[Any], Any]:
    return lambda value: narrow(np.asarray(value, np.float32)[None], dtype)[0]


def _from_half(dtype: str) -> Callable[[Any], Any]:
    return lambda half: widen(np.asarray(half, np.uint16)[None], dtype)[0]


def _unwritten(size: int, dtype: Any) -> NDArray[Any]:
    """NaN, or integers far below zero: what a function reads before writing it shows."""
    return np.full(size, np.nan if np.issubdtype(dtype, np.floating) else -(2**31), dtype)


def modules() -> dict[str, Any]:
    """What the imports of a text find, by name."""
    names = ("float32", "float64", "int32", "int64", "inf", "nan", "finfo", "zeros")
    ours: dict[str, dict[str, Any]] = {
        "halves": {
            f"{way}_{dtype}": make(dtype)
            for dtype in ("float16", "bfloat16")
            for way, make in (("from", _from_half), ("to", _to_half))
        },
        "simd": {"address": address, "advance": advance, "assign": assign, "element": element},
        "lanes": {"part_writer": part_writer, "reader": reader, "reductions": reductions},
        "vectors": {
            "floor": np.floor,
            "fma": lambda a, b, c: a * b + c,
            "maximum": lambda a, b: np.where(a > b, a, b),
            "power_of_two": power_of_two,
            "select": np.where,
            "shaped": shaped,
            "store": store,
            "transpose": transpose,
        },
        "tiles": {
            one.__name__: one
            for one in (
                add_listed, add_tile, gather_rows, load_each, load_scaled, multiply_add, scatter_rows, store_each,
                store_tile, times, times_or_zero,
            )
        },
    }  # fmt: skip
    return {f"splat_numba.runtime.{name}": SimpleNamespace(**members) for name, members in ours.items()} | {
        "numpy": SimpleNamespace(empty=_unwritten, **{name: getattr(np, name) for name in names}),
        "numba": SimpleNamespace(njit=lambda **_: lambda function: function),
        # 0 gives -inf, as with Numba's error_model="numpy"; floor gives an integer, as in Python.
        "math": SimpleNamespace(log=np.log, sqrt=np.sqrt, floor=math.floor),
    }
