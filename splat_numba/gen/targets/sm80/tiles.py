"""Rows of arrays into shared memory by copies in the background, and a warp's matrix products over what stands there.

What is beyond the sequence or the key length is stored as 0: 0 x NaN is NaN. So is what a step of sixteen numbers has
beyond a row's last one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from splat_numba.gen.language.lane_layout import (
    ATOM,
    LANE_COLUMNS,
    LEFT_WORDS,
    MATRIX,
    RIGHT_WORDS,
    SUMS,
    log2,
    sums_of,
    words_of,
)
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.shape import CHUNK, loads, row_bytes, row_chunks, steps

# This thread's number, in a way that the compiler does not see through: what is made of it would be kept in registers
# through the loop over tiles, in which there are none to spare.
OPAQUE_THREAD = "ptx.shuffle_xor_word(ptx.thread_index(), u32(0))"
ZEROS = ", ".join(["u32(0)"] * 4)


@dataclass(frozen=True, slots=True)
class Load:
    """A function copy_<what> of ``rows`` rows of ``dim`` numbers by ``threads`` threads. parameters: that ``token``
    needs, the line that says which token is at a ``place``; guarded: tokens may be at ``limit`` or beyond; multiplied:
    numbers beyond a row's last would be added up, and not only stand in columns that nobody stores; itemsize: bytes of
    a number; stepped: where a tile lies on one line, and all of it is there, a lane goes on from chunk to chunk by a
    step.
    """

    what: str
    rows: int
    dim: int
    threads: int
    parameters: tuple[str, ...]
    token: str
    guarded: bool
    multiplied: bool
    itemsize: int = 2
    stepped: bool = False

    @property
    def steps_rows(self) -> int:
        """How many rows further on a lane's next chunk is, where it may step from one to the next; else 0."""
        rows = self.threads // max(self.copied, 1)
        alike = self.copied and self.threads % self.copied == 0 and self.rows % rows == 0
        return rows if self.stepped and alike else 0

    @property
    def loads(self) -> int:
        """Chunks of a row."""
        return loads(self.dim, self.itemsize)

    @property
    def copied(self) -> int:
        """Chunks of a row that are copied as they are."""
        return self.dim * self.itemsize // CHUNK if self.multiplied else self.loads

    @property
    def row_bytes(self) -> int:
        """Of a row in shared memory."""
        return row_bytes(self.dim, self.itemsize)

    @property
    def empty(self) -> range:
        """Chunks of a row in shared memory that no load fills."""
        return range(self.loads, row_chunks(self.dim, self.itemsize))


def emit_load(out: SourceWriter, load: Load) -> None:
    """The function: ``copy(first, step, to, ...)`` from rows ``step`` bytes apart to shared memory."""
    parameters = ("first", "step", "to", *load.parameters)
    with device_function(out, f"copy_{load.what}", parameters, f"Begin to copy the {load.what} of a tile."):
        if load.steps_rows:
            _emit_steps(out, load)
        elif load.copied:
            _emit_chunks(out, load)
        if load.copied < load.loads:
            wrapped(out, f"store_{load.what}_tails", parameters)
    if load.copied < load.loads:
        _emit_tails(out, load, parameters)


def _emit_steps(out: SourceWriter, load: Load) -> None:
    """Three instructions a chunk for some seventeen, where what is said of ``stepped`` holds."""
    step, chunks = load.steps_rows, load.copied
    line = f"box_shift == u32({log2(load.rows)})"
    there = f" and u32(corner + u32({load.rows - 1}) * inner_step) < limit" if load.guarded else ""
    with out.block(f"if {line}{there}"):
        out.lines(
            f"""
            thread = {OPAQUE_THREAD}
            chunk = u32(thread % u32({chunks}))
            place = u32(thread // u32({chunks}))
            at = u32(to + place * u32({load.row_bytes}) + chunk * u32({CHUNK}))
            source = first + u64(u32(corner + inner_step * place)) * step + u64({CHUNK}) * u64(chunk)
            further = u64(u32({step}) * inner_step) * step
            """
        )
        for i in range(load.rows // step):
            out.line(f"ptx.async_copy(u32(at + u32({load.row_bytes * step * i})), source, u32(1))")
            if i + 1 < load.rows // step:
                out.line("source += further")
    with out.block("else"):
        _emit_chunks(out, load)


def _emit_chunks(out: SourceWriter, load: Load) -> None:
    """A lane has one chunk of every so many rows where the threads are so many rows of them, else any. A loop whose end
    the compiler does not know: else it keeps the places of all chunks in registers.
    """
    chunks, threads = load.copied, load.threads
    whole = load.rows * chunks % threads == 0
    out.line(f"thread = {OPAQUE_THREAD}")
    if threads % chunks == 0:
        out.line(f"chunk = u32(thread % u32({chunks}))")
        out.line(f"place = u32(thread // u32({chunks}))")
        with out.block(f"while place < u32({load.rows})"):
            _emit_chunk(out, load, whole=whole)
            out.line(f"place = u32(place + u32({threads // chunks}))")
        return
    out.line("number = thread")
    with out.block(f"while number < u32({load.rows * chunks})"):
        out.line(f"place = u32(number // u32({chunks}))")
        out.line(f"chunk = u32(number - place * u32({chunks}))")
        _emit_chunk(out, load, whole=whole)
        out.line(f"number = u32(number + u32({threads}))")


def _emit_chunk(out: SourceWriter, load: Load, *, whole: bool) -> None:
    """Copy the chunk, or where its token is not there store zeros. whole: every lane has as many."""
    if not whole:
        out.line(f"mine = u32(1) if place < u32({load.rows}) else u32(0)")
    out.line(load.token)
    out.line(f"at = u32(to + place * u32({load.row_bytes}) + chunk * u32({CHUNK}))")
    source = f"first + u64(token) * step + u64({CHUNK}) * u64(chunk)"
    if not load.guarded:
        out.line(f"ptx.async_copy(at, {source}, {'u32(1)' if whole else 'mine'})")
        return
    out.line("inside = u32(1) if token < limit else u32(0)")
    out.line(f"ptx.async_copy(at, {source}, {'inside' if whole else 'inside & mine'})")
    beyond = "u32(u32(1) - inside)" if whole else "u32(u32(1) - inside) & mine"
    out.line(f"ptx.store_shared_words4(at, {ZEROS}, {beyond})")


def _emit_tails(out: SourceWriter, load: Load, parameters: tuple[str, ...]) -> None:
    """Rows of which the last chunk is not whole: what follows their numbers may be anything."""
    tail, pitch, rows = load.dim * load.itemsize % CHUNK // 2, load.row_bytes, load.rows  # tail: in 16 bits
    text = "The last chunk of each row, its numbers alone."
    kept = [f"word_{x}" for x in range(tail // 2)] + [f"word_{tail // 2} & u32(65535)"] * (tail % 2)
    words = ", ".join((kept + ["u32(0)"] * 4)[:4])
    function = device_function(out, f"store_{load.what}_tails", parameters, text)
    with function, out.block(f"for i in range({-(-rows // load.threads)})"):
        out.line(f"place = u32(ptx.thread_index() + u32({load.threads}) * u32(i))")
        out.line(f"mine = u32(1) if place < u32({rows}) else u32(0)")
        out.line(f"place = place if place < u32({rows}) else u32({rows - 1})")
        out.line(load.token)
        out.line("inside = mine if token < limit else u32(0)" if load.guarded else "inside = mine")
        out.line(f"at = first + u64(token) * step + u64({CHUNK * load.copied})")
        out.line("word_0, word_1, word_2, word_3 = ptx.load_words4_when(at, inside)")
        out.line(f"at = u32(to + place * u32({pitch}) + u32({CHUNK * load.copied}))")
        out.line(f"ptx.store_shared_words4(at, {words}, mine)")


def padded(dims: Iterable[int], itemsize: int = 2) -> bool:
    """Whether the last sixteen of some rows has chunks that no load fills."""
    return any(loads(dim, itemsize) < row_chunks(dim, itemsize) for dim in dims)


def of_stages(place: str, stage_bytes: int, stages: int) -> list[str]:
    """A place in each of the stages."""
    return [f"{place} + u32({stage * stage_bytes})" for stage in range(stages)]


def emit_padding(out: SourceWriter, loaded: Sequence[tuple[Load, list[str]]]) -> None:
    """Zeros where nothing is loaded, once for an item. loaded: loads, and the places that each one fills."""
    open_ended = [(load, places) for load, places in loaded if load.empty]
    with device_function(out, "clear_padding", ("base",), "The chunks that complete a row's last step, as 0."):
        for load, places in open_ended:
            for place in places:
                out.line(f"clear_{load.what}(u32({place}))")
    for load, _ in open_ended:
        function = device_function(out, f"clear_{load.what}", ("to",), "The same of one tile.")
        with function, out.block(f"for i in range({-(-load.rows // load.threads)})"):
            out.line(f"place = u32(ptx.thread_index() + u32({load.threads}) * u32(i))")
            out.line(f"mine = u32(1) if place < u32({load.rows}) else u32(0)")
            for chunk in load.empty:
                out.line(f"at = u32(to + place * u32({load.row_bytes}) + u32({CHUNK * chunk}))")
                out.line(f"ptx.store_shared_words4(at, {ZEROS}, mine)")


def of_atoms(names: str, atoms: int) -> tuple[str, ...]:
    """Each of the names, once for every atom."""
    return tuple(f"{name}_{atom}" for name in names.split() for atom in range(atoms))


@dataclass(frozen=True, slots=True)
class RowProduct:
    """A function ``name`` of sums (of every atom, (16, columns)) = left x right: of rows of ``dim`` numbers on both
    sides. left, right: names of where a lane's first matrix is; rests: bytes from what is left to its rests, 0 where
    these are made of it.
    """

    name: str
    sums: tuple[str, ...]
    left: str
    right: str
    columns: int
    dim: int
    texts: tuple[str, str]
    rests: int = 0


@dataclass(frozen=True, slots=True)
class SumProduct:
    """A function ``name`` of sums (of every atom, (16, dim)) += weights x right: weights (16, depth) in registers, as
    a row product leaves them, right of ``depth`` rows. shared_bytes: where weights are rounded and in shared memory
    instead, sixteen rows of them transposed; so many bytes lie between, and weights are where a lane's row is;
    as_words: or where its four words are; packed: or weights are words in registers already.
    """

    name: str
    sums: tuple[str, ...]
    weights: tuple[str, ...]
    right: str
    depth: int
    dim: int
    texts: tuple[str, str]
    shared_bytes: int = 0
    as_words: bool = False
    packed: bool = False


def emit_row_product(out: SourceWriter, one: RowProduct) -> None:
    """Calls in place of loops: arrays stay registers that way."""
    atoms, pitch, left = range(len(one.sums)), row_bytes(one.dim), _left(one.sums)
    parameters = (*one.sums, one.left, one.right)
    with device_function(out, one.name, parameters, one.texts[0]):
        with out.block(f"for i in range({sums_of(one.columns)})"):
            for name in one.sums:
                out.line(f"{name}[i] = f32(0.0)")
        for step in range(steps(one.dim)):
            offset = f"u32({2 * CHUNK * step})"
            wrapped(out, f"{one.name}_step", (*one.sums, f"u32({one.left} + {offset})", f"u32({one.right} + {offset})"))
    with device_function(out, f"{one.name}_step", parameters, one.texts[1]):
        for atom in atoms:
            names = ", ".join(_of_atom(left, atom))
            out.line(f"{names} = ptx.load_matrices(u32({one.left} + u32({ATOM * pitch * atom})))")
        for j in range(one.columns // ATOM):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices(u32({one.right} + u32({ATOM * pitch * j})))")
            _emit_pair(out, one.sums, sums_of(ATOM * j), left)


def emit_sum_product(out: SourceWriter, one: SumProduct, dtype: str) -> None:
    """Weights are rounded to ``dtype`` on the way; calls as above."""
    pitch, parameters, left = row_bytes(one.dim), (*one.sums, *one.weights, one.right), _left(one.sums)
    with device_function(out, one.name, parameters, one.texts[0]):
        for step in range(one.depth // ATOM):
            of_step = words_of if one.packed else sums_of
            first, right = of_step(ATOM * step), f"u32({one.right} + u32({ATOM * pitch * step}))"
            if one.shared_bytes:
                places = [f"u32({name} + u32({one.shared_bytes * step}))" for name in one.weights]
                wrapped(out, f"{one.name}_step", (*one.sums, *places, right))
            else:
                wrapped(out, f"{one.name}_step", (str(first), *parameters[:-1], right))
    first_sum = ("first",) * (not one.shared_bytes)
    with device_function(out, f"{one.name}_step", (*first_sum, *parameters), one.texts[1]):
        for atom, name in enumerate(one.weights):
            if one.shared_bytes:
                load = "load_shared_words4" if one.as_words else "load_matrices_transposed"
                out.line(f"{', '.join(_of_atom(left, atom))} = ptx.{load}({name})")
                continue
            if one.packed:
                words = ", ".join(f"{name}[first + {i}]" for i in range(LEFT_WORDS))
                out.line(f"{', '.join(_of_atom(left, atom))} = {words}")
                continue
            for i, word in enumerate(_of_atom(left, atom)):
                pair = ", ".join(f"{name}[first + {LANE_COLUMNS * i + x}]" for x in range(LANE_COLUMNS))
                out.line(f"{word} = ptx.pack_{dtype}({pair})")
        for j in range(steps(one.dim)):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32({one.right} + u32({2 * CHUNK * j})))")
            _emit_pair(out, one.sums, sums_of(ATOM * j), left)


def _left(sums: tuple[str, ...]) -> list[str]:
    """Words of the left operand, four an atom."""
    return [f"a_{i}" for i in range(LEFT_WORDS * len(sums))]


def _emit_pair(out: SourceWriter, sums: tuple[str, ...], at: int, left: list[str]) -> None:
    """Two products of eight columns for each atom."""
    for half in range(ATOM // MATRIX):
        right = [f"b_{RIGHT_WORDS * half + i}" for i in range(RIGHT_WORDS)]
        for atom, name in enumerate(sums):
            wrapped(out, "add_product", (name, str(at + SUMS * half), *_of_atom(left, atom), *right))


def _of_atom(left: list[str], atom: int) -> list[str]:
    """Its words of the left operand."""
    return left[LEFT_WORDS * atom : LEFT_WORDS * (atom + 1)]


def emit_add(out: SourceWriter, dtype: str, depth: int = ATOM) -> None:
    """The product that all of these are made of."""
    parameters = ("sums", "at", "a_0", "a_1", "a_2", "a_3", "b_0", "b_1")
    with device_function(out, "add_product", parameters, f"(16, 8) sums += (16, {depth}) x ({depth}, 8)."):
        four = ", ".join(f"sums[at + {i}]" for i in range(SUMS))
        out.line(f"{four} = ptx.mma_{dtype}(")
        with out.suite():
            out.line("a_0, a_1, a_2, a_3, b_0, b_1,")
            out.line(f"{four},")
        out.line(")")
