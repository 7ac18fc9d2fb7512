"""Rows of arrays into shared memory by copies in the background, and a warp's matrix products over what stands there.

What is beyond the sequence or the key length is stored as 0: 0 x NaN is NaN. So is what a step of sixteen numbers has
beyond a row's last one.
"""

from __future__ import annotations

from dataclasses import dataclass

from splat_numba.gen.boxes import Traits
from splat_numba.gen.lane_layout import ATOM, LANE_COLUMNS, LEFT_WORDS, MATRIX, RIGHT_WORDS, SUMS, sums_of
from splat_numba.gen.targets.gpu.addresses import LISTED, TILE, TOKEN_OF_ROW, TOKEN_OF_TILE
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.shape import (
    CHUNK,
    NUMBERS,
    STAGES,
    atoms_of,
    loads,
    row_bytes,
    shared_layout,
    steps,
    threads_of,
)
from splat_numba.gen.writer import SourceWriter

# This thread's number, in a way that the compiler does not see through: what is made of it would be kept in registers
# through the loop over tiles, in which there are none to spare.
OPAQUE_THREAD = "ptx.shuffle_xor_word(ptx.thread_index(), u32(0))"
ZEROS = ", ".join(["u32(0)"] * 4)


@dataclass(frozen=True, slots=True)
class Load:
    """A function copy_<what> of ``rows`` rows of ``dim`` numbers by ``threads`` threads. parameters: that ``token``
    needs, the line that says which token is at a ``place``; guarded: tokens may be at ``limit`` or beyond; multiplied:
    numbers beyond a row's last would be added up, and not only stand in columns that nobody stores.
    """

    what: str
    rows: int
    dim: int
    threads: int
    parameters: tuple[str, ...]
    token: str
    guarded: bool
    multiplied: bool

    @property
    def copied(self) -> int:
        """Chunks of a row that are copied as they are."""
        return self.dim // NUMBERS if self.multiplied else loads(self.dim)


def loads_of(traits: Traits) -> tuple[Load, Load, Load]:
    """Of queries, keys and values. A pass without masks and lengths has only tiles all of whose keys there are."""
    threads, guarded = threads_of(traits), traits.partial or traits.ragged
    return (
        Load("queries", traits.tile_q, traits.head_dim, threads, LISTED, TOKEN_OF_ROW, True, True),
        Load("keys", traits.tile_kv, traits.head_dim, threads, TILE, TOKEN_OF_TILE, guarded, True),
        Load("values", traits.tile_kv, traits.value_dim, threads, TILE, TOKEN_OF_TILE, guarded, False),
    )


def emit_load(out: SourceWriter, load: Load) -> None:
    """The function: ``copy(first, step, to, ...)`` from rows ``step`` bytes apart to shared memory."""
    parameters = ("first", "step", "to", *load.parameters)
    with device_function(out, f"copy_{load.what}", parameters, f"Begin to copy the {load.what} of a tile."):
        if load.copied:
            _emit_chunks(out, load)
        if load.copied < loads(load.dim):
            wrapped(out, f"store_{load.what}_tails", parameters)
    if load.copied < loads(load.dim):
        _emit_tails(out, load, parameters)


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
    out.line(f"at = u32(to + place * u32({row_bytes(load.dim)}) + chunk * u32({CHUNK}))")
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
    tail, pitch, rows = load.dim % NUMBERS, row_bytes(load.dim), load.rows
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


def padded(traits: Traits) -> bool:
    """Whether the last step of some rows has a chunk that no load fills."""
    return any(loads(dim) % 2 for dim in (traits.head_dim, traits.value_dim))


def emit_padding(out: SourceWriter, traits: Traits) -> None:
    """Zeros where nothing is loaded, once for an item."""
    stages = [f"u32({stage * shared_layout(traits).stage_bytes})" for stage in range(STAGES)]
    places = {
        "queries": ["base + QUERIES"],
        "keys": [f"base + TILES + {stage}" for stage in stages],
        "values": [f"base + TILES + VALUES + {stage}" for stage in stages],
    }
    open_ended = [load for load in loads_of(traits) if loads(load.dim) % 2]
    with device_function(out, "clear_padding", ("base",), "The chunks that complete a row's last step, as 0."):
        for load in open_ended:
            for place in places[load.what]:
                out.line(f"clear_{load.what}(u32({place}))")
    for load in open_ended:
        function = device_function(out, f"clear_{load.what}", ("to",), "The same of one tile.")
        with function, out.block(f"for i in range({-(-load.rows // load.threads)})"):
            out.line(f"place = u32(ptx.thread_index() + u32({load.threads}) * u32(i))")
            out.line(f"mine = u32(1) if place < u32({load.rows}) else u32(0)")
            out.line(f"at = u32(to + place * u32({row_bytes(load.dim)}) + u32({CHUNK * loads(load.dim)}))")
            out.line(f"ptx.store_shared_words4(at, {ZEROS}, mine)")


def of_atoms(names: str, traits: Traits) -> tuple[str, ...]:
    """Each of the names, once for every atom."""
    return tuple(f"{name}_{atom}" for name in names.split() for atom in range(atoms_of(traits)))


def emit_products(out: SourceWriter, traits: Traits) -> None:
    """Scores of a tile, and weights times its values. Calls in place of loops: arrays stay registers that way."""
    atoms, pitch = range(atoms_of(traits)), row_bytes(traits.head_dim)
    score, total = of_atoms("score", traits), of_atoms("total", traits)
    left = [f"a_{i}" for i in range(LEFT_WORDS * len(atoms))]
    _emit_add(out, traits.dtype)
    with device_function(
        out, "multiply_keys", (*score, "queries", "keys"), "Scores of a warp's rows with a tile's keys."
    ):
        with out.block(f"for i in range({sums_of(traits.tile_kv)})"):
            for name in score:
                out.line(f"{name}[i] = f32(0.0)")
        for step in range(steps(traits.head_dim)):
            offset = f"u32({2 * CHUNK * step})"
            wrapped(out, "multiply_keys_step", (*score, f"u32(queries + {offset})", f"u32(keys + {offset})"))
    text = "Sixteen numbers of each row and key."
    with device_function(out, "multiply_keys_step", (*score, "queries", "keys"), text):
        for atom in atoms:
            names = ", ".join(_of_atom(left, atom))
            out.line(f"{names} = ptx.load_matrices(u32(queries + u32({ATOM * pitch * atom})))")
        for j in range(traits.tile_kv // ATOM):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices(u32(keys + u32({ATOM * pitch * j})))")
            _emit_pair(out, score, sums_of(ATOM * j), left)
    _emit_values(out, traits, score, total, left)


def _emit_values(
    out: SourceWriter, traits: Traits, score: tuple[str, ...], total: tuple[str, ...], left: list[str]
) -> None:
    pitch = row_bytes(traits.value_dim)
    parameters = (*total, *score, "values")
    with device_function(out, "multiply_values", parameters, "Weights of a warp's rows times a tile's values."):
        for step in range(traits.tile_kv // ATOM):
            wrapped(
                out,
                "multiply_values_step",
                (str(sums_of(ATOM * step)), *parameters[:-1], f"u32(values + u32({ATOM * pitch * step}))"),
            )
    text = "Sixteen keys; their weights in the arrays' dtype, two a word."
    with device_function(out, "multiply_values_step", ("first", *parameters), text):
        for atom, name in enumerate(score):
            for i, word in enumerate(_of_atom(left, atom)):
                pair = ", ".join(f"{name}[first + {LANE_COLUMNS * i + x}]" for x in range(LANE_COLUMNS))
                out.line(f"{word} = ptx.pack_{traits.dtype}({pair})")
        for j in range(steps(traits.value_dim)):
            out.line(f"b_0, b_1, b_2, b_3 = ptx.load_matrices_transposed(u32(values + u32({2 * CHUNK * j})))")
            _emit_pair(out, total, sums_of(ATOM * j), left)


def _emit_pair(out: SourceWriter, sums: tuple[str, ...], at: int, left: list[str]) -> None:
    """Two products of eight columns for each atom."""
    for half in range(ATOM // MATRIX):
        right = [f"b_{RIGHT_WORDS * half + i}" for i in range(RIGHT_WORDS)]
        for atom, name in enumerate(sums):
            wrapped(out, "add_product", (name, str(at + SUMS * half), *_of_atom(left, atom), *right))


def _of_atom(left: list[str], atom: int) -> list[str]:
    """Its words of the left operand."""
    return left[LEFT_WORDS * atom : LEFT_WORDS * (atom + 1)]


def _emit_add(out: SourceWriter, dtype: str) -> None:
    parameters = ("sums", "at", "a_0", "a_1", "a_2", "a_3", "b_0", "b_1")
    with device_function(out, "add_product", parameters, "(16, 8) sums += (16, 16) x (16, 8)."):
        four = ", ".join(f"sums[at + {i}]" for i in range(SUMS))
        out.line(f"{four} = ptx.mma_{dtype}(")
        with out.suite():
            out.line("a_0, a_1, a_2, a_3, b_0, b_1,")
            out.line(f"{four},")
        out.line(")")
