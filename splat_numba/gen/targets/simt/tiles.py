"""Rows of arrays into shared memory, and the two products of a text over what stands there.

A lane fetches chunks of 16 bytes, neighbouring lanes neighbouring chunks; several are under way before the first is
stored. What is beyond the sequence, the key length or the row's last number is stored as 0: 0 x NaN is NaN.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function
from splat_numba.gen.targets.simt.shape import CHUNK, LANES_OF_ROW, Numbers, Share

AT_ONCE = {True: 8, False: 4}  # chunks of a lane under way, by whether there are registers to spare


@dataclass(frozen=True, slots=True)
class Load:
    """A function load_<what> of ``rows`` rows of ``dim`` numbers. parameters: that ``token`` needs, the line that says
    which token is at a ``place``, and ``limit``, below which it must be; kept: whether its row counts, else it is 0.
    """

    what: str
    rows: int
    dim: int
    parameters: tuple[str, ...]
    token: str
    kept: str = ""


def emit_load(out: SourceWriter, load: Load, numbers: Numbers, threads: int, at_once: int) -> None:
    """The function: ``load(first, step, to, ...)`` from rows ``step`` bytes apart to shared memory.

    A loop whose end the compiler does not know: else it keeps the places of all chunks in registers.
    """
    chunks = load.rows * numbers.loads(load.dim)
    at_once = min(at_once, -(-chunks // threads))
    whole = chunks % (at_once * threads) == 0
    parameters = ("first", "step", "to", *load.parameters)
    with device_function(out, f"load_{load.what}", parameters, f"The {load.what} of a tile, into shared memory."):
        out.line(f"chunks = cuda.local.array({4 * at_once}, dtype=np.uint32)")
        out.line("begin = ptx.thread_index()")
        with out.block(f"while begin < u32({chunks})"):
            for i in range(at_once):
                out.line(f"fetch_{load.what}({i}, begin, chunks, first, step, {', '.join(load.parameters)})")
            for i in range(at_once):
                out.line(f"store_{load.what}({i}, begin, chunks, to)")
            out.line(f"begin = u32(begin + u32({threads * at_once}))")
    parameters = ("i", "begin", "chunks", "first", "step", *load.parameters)
    with device_function(out, f"fetch_{load.what}", parameters, "A lane's chunk of this number."):
        _emit_place(out, load, numbers, threads)
        if not whole:
            out.line(f"place = place if place < u32({load.rows}) else u32({load.rows - 1})")
        out.line(load.token)
        words = ", ".join(f"chunks[4 * i + {x}]" for x in range(4))
        out.line("inside = u32(1) if token < limit else u32(0)")
        if load.kept:
            out.line("token = token if token < limit else u32(0)")
            out.line(f"inside = inside if {load.kept} else u32(0)")
        out.line("at = first + u64(token) * step + u64(16) * u64(chunk)")
        out.line(f"{words} = ptx.load_words4_when(at, inside)")
    with device_function(out, f"store_{load.what}", ("i", "begin", "chunks", "to"), "The same into shared memory."):
        _emit_place(out, load, numbers, threads)
        _emit_store(out, load, numbers, "u32(1)" if whole else "mine")


def _emit_place(out: SourceWriter, load: Load, numbers: Numbers, threads: int) -> None:
    """Which row and which chunk of it is this lane's now."""
    out.lines(
        f"""
        number = u32(begin + u32({threads} * i))
        place = u32(number // u32({numbers.loads(load.dim)}))
        chunk = u32(number - place * u32({numbers.loads(load.dim)}))
        """
    )


def _emit_store(out: SourceWriter, load: Load, numbers: Numbers, when: str) -> None:
    """What was fetched, as numbers of the text; those of a row's last chunk that are beyond it as 0."""
    if when == "mine":
        out.line(f"mine = u32(1) if place < u32({load.rows}) else u32(0)")
    size = numbers.loaded * numbers.size
    out.line(f"at = u32(to + place * u32({numbers.row_bytes(load.dim)}) + chunk * u32({size}))")
    tail = load.dim - (numbers.loads(load.dim) - 1) * numbers.loaded
    if tail < numbers.loaded:
        out.line(f"full = u32(1) if chunk < u32({numbers.loads(load.dim) - 1}) else u32(0)")
    if numbers.loaded == 8:
        _emit_halves(out, numbers.dtype, tail, when)
        return
    words = [f"chunks[4 * i + {x}]" for x in range(4)]
    kept = [
        word if x * numbers.loaded // 4 < tail else f"ptx.select({word}, u32(0), full)" for x, word in enumerate(words)
    ]
    out.line(f"ptx.store_shared_words4(at, {', '.join(kept)}, {when})")


def _emit_halves(out: SourceWriter, dtype: str, tail: int, when: str) -> None:
    """Eight 16-bit numbers as float32."""
    for x in range(4):
        out.line(f"x_{2 * x}, x_{2 * x + 1} = ptx.unpack_{dtype}(chunks[4 * i + {x}])")
    for first in (0, 4):
        kept = [f"x_{x}" if x < tail else f"ptx.select_real(x_{x}, ZERO, full)" for x in range(first, first + 4)]
        out.line(f"ptx.store_shared_reals4(at + u32({4 * first}), {', '.join(kept)}, {when})")


def emit_row_product(
    out: SourceWriter, name: str, numbers: Numbers, share: Share, dim: int, what: str, result: str = "score"
) -> None:
    """``name(result, left, right, steps)``: products of a thread's rows with its keys, a chunk of both at a time."""
    of, keys, pitch = numbers.of_chunk, share.keys, numbers.row_bytes(dim)
    with device_function(out, name, (result, "left", "right", "steps"), what):
        out.line(f"key = cuda.local.array({keys * of}, dtype=np.{numbers.computed})")
        with out.block(f"for i in range({share.rows * keys})"):
            out.line(f"{result}[i] = ZERO")
        with out.block("for step in range(steps)"):
            with out.block(f"for j in range({keys})"):
                at = f"right + u32({LANES_OF_ROW * pitch}) * u32(j) + u32({CHUNK}) * u32(step)"
                out.line(f"{', '.join(f'key[{of} * j + {x}]' for x in range(of))} = read_chunk({at})")
            with out.block(f"for i in range({share.rows})"):
                at = f"left + u32({pitch}) * u32(i) + u32({CHUNK}) * u32(step)"
                out.line(f"{', '.join(f'x_{x}' for x in range(of))} = read_chunk({at})")
                with out.block(f"for j in range({keys})"):
                    for x in range(of):
                        out.line(f"{result}[{keys} * i + j] += x_{x} * key[{of} * j + {x}]")


def emit_sum_product(
    out: SourceWriter, name: str, numbers: Numbers, share: Share, dims: tuple[int, int], total: str, what: str
) -> None:
    """``name(total, weights, right, steps)``: weights of a thread's rows times its columns of the tile's rows.

    dims: numbers of a row of weights, and of the tile; total[(pieces i + piece) of_chunk + y].
    """
    of, of_row = numbers.of_chunk, -(-numbers.chunks(dims[1]) // LANES_OF_ROW)
    with device_function(out, name, (total, "weights", "right", "steps"), what):
        out.lines(
            f"""
            weight = cuda.local.array({share.rows * of}, dtype=np.{numbers.computed})
            place = cuda.local.array({of_row}, dtype=np.uint32)
            for piece in range({of_row}):
                chunk = chunk_of(piece)
                place[piece] = right + u32({CHUNK}) * (chunk if chunk < u32({numbers.chunks(dims[1])}) else u32(0))
            """
        )
        with out.block("for step in range(steps)"):
            with out.block(f"for i in range({share.rows})"):
                at = f"weights + u32({numbers.row_bytes(dims[0])}) * u32(i) + u32({CHUNK}) * u32(step)"
                out.line(f"{', '.join(f'weight[{of} * i + {x}]' for x in range(of))} = read_chunk({at})")
            with out.block(f"for x in range({of})"), out.block(f"for piece in range({of_row})"):
                row = f"u32({of}) * u32(step) + u32(x)"
                values = [f"y_{y}" for y in range(of)]
                at = f"place[piece] + u32({numbers.row_bytes(dims[1])}) * u32({row})"
                out.line(f"{', '.join(values)} = read_chunk({at})")
                with out.block(f"for i in range({share.rows})"):
                    for y, value in enumerate(values):
                        out.line(f"{total}[{of} * ({of_row} * i + piece) + {y}] += weight[{of} * i + x] * {value}")


def emit_chunk_of(out: SourceWriter) -> None:
    """Which chunks of a row of results are a lane's."""
    with device_function(out, "chunk_of", ("piece",), "The chunk of a row's numbers that is this lane's next."):
        out.line(f"return u32(u32(ptx.thread_index() & u32({LANES_OF_ROW - 1})) + u32({LANES_OF_ROW}) * u32(piece))")
