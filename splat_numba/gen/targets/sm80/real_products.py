"""A warp's matrix products of float32: one of TF32, or three.

TF32 has 11 of float32's 24 bits. A number is one of TF32 and a rest: x = a + r, y = b + s. Then x y = a b + a s + r b
but for r s, below 2**-21 of it: "ieee", three products. "tf32" rounds both and makes one. What is left is rounded, so
that its rests have either sign; what is right is cut off, as two instructions do that for every product.

Products are of depth 8, and the layout is that of 16 bits with a word for two of those: what ldmatrix moves, queries
and keys, is as it is there. Of weights times values the depth may have any order: it takes keys 2 t of eight, then
2 t + 1, as a lane has these weights. Values are read two by two, and so columns of sixteen lie apart: sums
[8 m + 4 x + 2 r + y] of a lane is row groupID + 8 r, column 16 m + 4 t + 2 y + x, so that a lane has four neighbours of
each sixteen.
"""

from __future__ import annotations

from collections.abc import Sequence

from splat_numba.gen.language.dtypes import IEEE
from splat_numba.gen.language.lane_layout import ATOM, LEFT_WORDS, MATRIX, RIGHT_WORDS, SUMS, sums_of
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.shape import CHUNK, row_bytes, steps
from splat_numba.gen.targets.sm80.tiles import RowProduct, SumProduct, emit_add

FLOAT = 4  # bytes
STEP = 2 * CHUNK  # bytes of a row that a product takes: eight numbers
SIXTEEN = sums_of(ATOM)  # registers of sixteen columns
LEFT, LEFT_REST, RIGHT, RIGHT_REST = "a", "r", "b", "s"
KEYS = 32  # of weights that are numbers of TF32 at once, where a warp has sixteen rows
WORDS = tuple(f"w_{i}" for i in range(LEFT_WORDS))
# TF32's bits, in a way that the compiler does not see through.
MASK = "ptx.shuffle_xor_word(u32(0xFFFFE000), u32(0))"


def emit_real_helpers(out: SourceWriter, precision: str) -> None:
    """What all products call: the product, and how its operands become numbers of TF32."""
    emit_add(out, "tf32", MATRIX)
    if precision != IEEE:
        emit_round_four(out)
        return
    text = "Four numbers as ones of TF32, and the rests."
    _emit_four(out, "split_left", LEFT, LEFT_REST, "split_rounded", text)
    _emit_four(out, "split_right", RIGHT, RIGHT_REST, "split_truncated", text)
    _emit_four(out, "split_columns", RIGHT, RIGHT_REST, "split_by_mask", text, "mask")


def emit_round_four(out: SourceWriter) -> None:
    """How the operands of one product become numbers of TF32."""
    _emit_four(out, "round_four", LEFT, "", "round_tf32", "Four numbers, rounded to TF32.")


def _emit_four(out: SourceWriter, name: str, what: str, rest: str, instruction: str, text: str, *more: str) -> None:
    numbers, rests = ([f"{one}_{i}" for i in range(LEFT_WORDS)] if one else [] for one in (what, rest))
    with device_function(out, name, (*numbers, *more), text):
        for i, number in enumerate(numbers):
            operands = ", ".join((number, *more))
            out.line(f"{', '.join((number, *rests[i : i + 1]))} = ptx.{instruction}({operands})")
        out.line(f"return {', '.join((*numbers, *rests))}")


def emit_real_row_product(out: SourceWriter, one: RowProduct, precision: str) -> None:
    """Calls in place of loops, as 16 bits have them."""
    parameters, atoms = (*one.sums, one.left, one.right), range(len(one.sums))
    pitch, four = row_bytes(one.dim, FLOAT), LEFT_WORDS * len(one.sums)
    with device_function(out, one.name, parameters, one.texts[0]):
        with out.block(f"for i in range({sums_of(one.columns)})"):
            for name in one.sums:
                out.line(f"{name}[i] = f32(0.0)")
        for step in range(-(-one.dim * FLOAT // STEP)):
            offset = f"u32({STEP * step})"
            wrapped(out, f"{one.name}_step", (*one.sums, f"u32({one.left} + {offset})", f"u32({one.right} + {offset})"))
    words = [*_names(LEFT, four), *(_names(LEFT_REST, four) if precision == IEEE else ())]
    with device_function(out, f"{one.name}_step", parameters, "Eight numbers of each row and column."):
        for atom in atoms:
            left = f"u32({one.left} + u32({ATOM * pitch * atom}))"
            if one.rests:
                _load_four(out, left, _names(LEFT, LEFT_WORDS, LEFT_WORDS * atom))
                left = f"u32({one.left} + u32({ATOM * pitch * atom + one.rests}))"
                _load_four(out, left, _names(LEFT_REST, LEFT_WORDS, LEFT_WORDS * atom))
                continue
            _load_four(out, left)
            _split(out, LEFT, atom, precision, WORDS)
        for j in range(one.columns // ATOM):
            right = f"u32({one.right} + u32({ATOM * pitch * j}))"
            wrapped(out, f"{one.name}_sixteen", (str(SIXTEEN * j), *one.sums, *words, right))
    with device_function(out, f"{one.name}_sixteen", ("at", *one.sums, *words, one.right), "Sixteen columns."):
        _load_four(out, one.right)
        _split(out, RIGHT, 0, precision, WORDS)
        _emit_terms(out, one.sums, "at + ", precision)


def emit_real_sum_product(out: SourceWriter, one: SumProduct, precision: str) -> None:
    """32 keys at a time, or sixteen. With three products their sum starts at 0 and is added to what there is: tensor
    cores cut off what they add up, which thousands of keys would make felt, and this addition rounds.
    """
    pitch, parameters, atoms = row_bytes(one.dim, FLOAT), (*one.sums, *one.weights, one.right), range(len(one.sums))
    mask = ("mask",) * (precision == IEEE)
    keys = KEYS if one.depth % KEYS == 0 and len(one.sums) == 1 else ATOM
    with device_function(out, one.name, parameters, one.texts[0]):
        if mask:
            out.line(f"mask = {MASK}")
        for key in range(0, one.depth, keys):
            first, right = sums_of(key), f"u32({one.right} + u32({pitch * key}))"
            wrapped(out, f"{one.name}_step", (str(first), *parameters[:-1], right, *mask))
    count = keys // MATRIX * LEFT_WORDS * len(one.sums)
    words = [*_names(LEFT, count), *(_names(LEFT_REST, count) if precision == IEEE else ())]
    with device_function(out, f"{one.name}_step", ("first", *parameters, *mask), f"{keys} keys and their weights."):
        out.line("ptx.warp_barrier()  # so that values of later keys are not read yet, and kept in registers")
        for eight in range(keys // MATRIX):
            for atom in atoms:
                places = (SUMS * eight + i for i in (0, 2, 1, 3))  # of rows r and keys x: r runs first
                numbers = [f"ptx.real_bits({one.weights[atom]}[first + {place}])" for place in places]
                _split(out, LEFT, len(one.sums) * eight + atom, precision, numbers)
        for j in range(steps(one.dim)):
            right = f"u32({one.right} + u32({ATOM * FLOAT * j}))"
            wrapped(out, f"{one.name}_sixteen", (str(SIXTEEN * j), *one.sums, *words, right, *mask))
    with device_function(out, f"{one.name}_sixteen", ("at", *one.sums, *words, one.right, *mask), "Sixteen columns."):
        _emit_columns(out, one, keys, pitch, precision)


def _emit_columns(out: SourceWriter, one: SumProduct, keys: int, pitch: int, precision: str) -> None:
    parts, at = list(one.sums), "at + "
    if precision == IEEE:
        parts, at = [f"part_{atom}" for atom in range(len(one.sums))], ""
        for part in parts:
            out.line(f"{part} = cuda.local.array({SIXTEEN}, dtype=np.float32)")
        with out.block(f"for i in range({SIXTEEN})"):
            for part in parts:
                out.line(f"{part}[i] = f32(0.0)")
    for depth in range(keys // MATRIX):
        for key in range(2):
            place = f"u32({one.right} + u32({pitch * (MATRIX * depth + key)}))"
            out.line(f"x_{key}, y_{key} = ptx.load_shared_reals2({place})")
        numbers = [f"ptx.real_bits({name})" for name in ("x_0", "x_1", "y_0", "y_1")]
        if precision == IEEE:
            names = (*_names(RIGHT, LEFT_WORDS), *_names(RIGHT_REST, LEFT_WORDS))
            wrapped(out, f"{', '.join(names)} = split_columns", (*numbers, "mask"))
        else:
            _split(out, RIGHT, 0, precision, numbers)
        _emit_terms(out, parts, at, precision, depth)
    if precision == IEEE:
        with out.block(f"for i in range({SIXTEEN})"):
            for part, total in zip(parts, one.sums, strict=True):
                out.line(f"{total}[at + i] += {part}[i]")


def _names(what: str, count: int, first: int = 0) -> list[str]:
    return [f"{what}_{i}" for i in range(first, first + count)]


def _load_four(out: SourceWriter, place: str, words: Sequence[str] = WORDS) -> None:
    out.line(f"{', '.join(words)} = ptx.load_matrices({place})")


def _split(out: SourceWriter, what: str, four: int, precision: str, numbers: Sequence[str]) -> None:
    """Name four numbers, and with three products their rests, after an operand."""
    names, first = _names(what, LEFT_WORDS, LEFT_WORDS * four), LEFT_WORDS * four
    function = "round_four"
    if precision == IEEE:
        rest, function = (LEFT_REST, "split_left") if what == LEFT else (RIGHT_REST, "split_right")
        names += _names(rest, LEFT_WORDS, first)
    wrapped(out, f"{', '.join(names)} = {function}", numbers)


def _emit_terms(out: SourceWriter, sums: Sequence[str], at: str, precision: str, depth: int = 0) -> None:
    """Small terms first, each of both eights of columns and all atoms, which do not wait for each other."""
    terms = ((LEFT_REST, RIGHT), (LEFT, RIGHT_REST), (LEFT, RIGHT)) if precision == IEEE else ((LEFT, RIGHT),)
    for left, right in terms:
        for eight in range(ATOM // MATRIX):
            columns = _names(right, RIGHT_WORDS, RIGHT_WORDS * eight)
            for atom, name in enumerate(sums):
                rows = _names(left, LEFT_WORDS, LEFT_WORDS * (len(sums) * depth + atom))
                wrapped(out, "add_product", (name, f"{at}{SUMS * eight}", *rows, *columns))
