"""The tiles of a row block in two stages: one is fetched while the other is computed, with one barrier a tile. Where
shared memory holds one stage alone, a tile is fetched, waited for and computed.

What is fetched and what is made of a tile is the caller's, who says it as lines: forward and gradients walk alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.lane_layout import ATOM, LANE_COLUMNS, MATRIX, ROW_LANES, WARP, log2
from splat_numba.gen.language.writer import SourceWriter
from splat_numba.gen.targets.gpu.functions import device_function, wrapped
from splat_numba.gen.targets.sm80.shape import CHUNK, row_bytes
from splat_numba.gen.targets.sm80.softmax import knows_status
from splat_numba.gen.targets.sm80.tiles import OPAQUE_THREAD

Lines = Callable[[SourceWriter], None]
LEFT, RIGHT, TRANSPOSED = "left", "right", "transposed"  # operands of a product, as ldmatrix wants their rows
PAIRED = "paired"  # an operand whose numbers a lane reads two by two: its own of a row, and of the next row


@dataclass(frozen=True, slots=True)
class Walk:
    """A function that goes through all tiles. boxes: of which they are, and in how many stages; fetch: copies the tile
    at ``corner`` to ``fetched + stage``; compute, parameters: of the function that makes something of a tile.
    """

    name: str
    text: str
    arguments: tuple[str, ...]
    boxes: Traits
    threads: int
    fetch: Lines
    compute: str
    parameters: tuple[str, ...]


def ahead(boxes: Traits) -> tuple[str, ...]:
    """What is known of the tile that is fetched next."""
    masks = ("mask",) * knows_status(boxes)
    return ("place", "count", "corner", "inner_step", "outer_step", *masks)


def _now(boxes: Traits) -> tuple[str, ...]:
    """What is still wanted of a tile when it is computed."""
    return (*("corner", "inner_step") * boxes.ragged, *("mask",) * knows_status(boxes))


def emit_walk(out: SourceWriter, walk: Walk) -> None:
    """The function, and what it advances by."""
    with device_function(out, walk.name, walk.arguments, walk.text):
        out.lines(
            """
            fetched = u32(base + TILES)
            place = ptx.load_word(block_at + u64(12))
            left = ptx.load_word(block_at + u64(20))
            """
        )
        if walk.boxes.stages == 1:
            _emit_in_turn(out, walk)
        else:
            _emit_at_once(out, walk)
    _emit_advance(out, walk)


def _emit_at_once(out: SourceWriter, walk: Walk) -> None:
    """A step fetches a tile and computes the one before, whose numbers go by names of their own."""
    following, ragged = ahead(walk.boxes), walk.boxes.ragged
    out.line("computing = u32(0)")
    out.line(f"{' = '.join(('stage', *following[1:]))} = u32(0)")
    with out.block("while left + computing > u32(0)"):
        now = _now(walk.boxes)
        if now:
            out.line(f"{', '.join(f'{name}_now' for name in now)} = {', '.join(now)}")
        out.lines(
            """
            if computing > u32(0):
                wait_for_copies()
                ptx.block_barrier()  # the tile is there, and nobody reads the other stage any more
            """
        )
        with out.block("if left > u32(0)"):
            wrapped(out, f"{', '.join(following)} = next_tile", ("piece", "views", *following))
            walk.fetch(out)
        out.line("ptx.async_commit()")
        with out.block("if computing > u32(0)" + " and corner_now < limit" * ragged):
            names = {**{name: f"{name}_now" for name in now}, "tile": "u32(fetched + u32(STAGE_BYTES - stage))"}
            wrapped(out, walk.compute, [names.get(name, name) for name in walk.parameters])
        out.lines(
            """
            stage = u32(STAGE_BYTES - stage)
            computing = u32(1) if left > u32(0) else u32(0)
            left = u32(left - computing)
            """
        )


def _emit_in_turn(out: SourceWriter, walk: Walk) -> None:
    following = ahead(walk.boxes)
    out.line(f"{' = '.join(('stage', *following[1:]))} = u32(0)")
    with out.block("while left > u32(0)"):
        out.line("ptx.block_barrier()  # nobody reads the tile before any more")
        wrapped(out, f"{', '.join(following)} = next_tile", ("piece", "views", *following))
        walk.fetch(out)
        out.lines(
            """
            ptx.async_commit()
            wait_for_copies()
            ptx.block_barrier()  # the tile is there
            """
        )
        with out.block("if corner < limit") if walk.boxes.ragged else nullcontext():
            wrapped(out, walk.compute, ["fetched" if name == "tile" else name for name in walk.parameters])
        out.line("left = u32(left - u32(1))")


def _emit_advance(out: SourceWriter, walk: Walk) -> None:
    following = ahead(walk.boxes)
    text = "The next tile of the piece, or the first of the next piece."
    with device_function(out, "next_tile", ("piece", "views", *following), text):
        out.lines(
            """
            if count == u32(0):
                view, c1, c2, count = ptx.load_words4(piece + u64(32) * u64(place))
                offset, inner_step, outer_step, _ = ptx.load_words4(views + u64(16) * u64(view))
                corner = u32(offset + inner_step * c1 + outer_step * c2)
            """
        )
        with out.suite():
            if knows_status(walk.boxes):
                _emit_status(out, walk)
            out.line("place = u32(place + u32(1))")
        out.lines(
            f"""
            else:
                corner = u32(corner + u32({walk.boxes.tile_kv}) * inner_step)
            count = u32(count - u32(1))
            return {", ".join(following)}
            """
        )


def _emit_status(out: SourceWriter, walk: Walk) -> None:
    """Of the warp's group, in a word: what it keeps of the tile in two bits, above them which mask that is."""
    out.line("status, mask, other, _ = ptx.load_words4(piece + u64(32) * u64(place) + u64(16))")
    if walk.boxes.groups == 1:
        out.line("mask = u32(u32(mask << u32(2)) | u32(status & u32(3)))")
        return
    out.line(f"second = u32(ptx.thread_index() // u32({walk.threads // 2}))  # which group the warp's rows are of")
    out.line("status = u32(u32(status >> u32(u32(2) * second)) & u32(3))")
    out.line("mask = u32(u32(ptx.select(other, mask, second) << u32(2)) | status)")


@dataclass(frozen=True, slots=True)
class Operand:
    """Where a lane's rows of an array's first matrix begin: as which operand, in which tile, of rows of ``dim`` numbers
    of ``itemsize`` bytes.
    """

    kind: str
    tile: str
    dim: int
    itemsize: int = 2


# Of the four matrices that ldmatrix moves at once, the pair that a lane gives a row of, and its row of the pair.
_PAIR, _OF_PAIR = f"u32(lane >> u32({log2(ATOM)}))", f"u32(lane & u32({ATOM - 1}))"


def emit_lane_places(
    out: SourceWriter, name: str, operands: Mapping[str, Operand], atoms: int, text: str, thread: str = OPAQUE_THREAD
) -> None:  # fmt: skip
    """``name(base, tile)``, of the operands by name. thread: its number among those that have the rows. Made anew for
    every tile: the registers that this leaves are those that 128 queries x 64 keys lack.
    """
    kinds = {one.kind for one in operands.values()}
    with device_function(out, name, ("base", "tile"), text):
        out.line(f"thread = {thread}")
        lane = f"u32(thread & u32({WARP - 1}))"
        if LEFT in kinds:
            first_row = f"u32(u32(thread >> u32({log2(WARP)})) * u32({ATOM * atoms}))"
            out.line(f"lane, first_row = {lane}, {first_row}")
        else:
            out.line(f"lane = {lane}")
        out.line("row, column = place_in_warp(thread)")
        out.line(f"upper = u32({_PAIR} * u32({CHUNK}))")
        first = next((one for one in operands.values() if one.kind == RIGHT), None)
        for operand, one in operands.items():
            if one is first:
                out.line(f"key_row = u32(u32({_PAIR} * u32({MATRIX})) + u32(lane & u32({MATRIX - 1})))")
            pitch = f"u32({row_bytes(one.dim, one.itemsize)})"
            where = {
                LEFT: f"u32(first_row + {_OF_PAIR}) * {pitch} + upper",
                RIGHT: f"key_row * {pitch} + u32(u32(lane >> u32({log2(MATRIX)})) & u32(1)) * u32({CHUNK})",
                TRANSPOSED: f"{_OF_PAIR} * {pitch} + upper",
                PAIRED: f"u32(column * {pitch}) + u32(lane >> u32({log2(ROW_LANES)})) * u32({CHUNK // 2})",
            }[one.kind]
            out.line(f"{operand} = u32({one.tile} + {where})")
        out.line(f"return {', '.join(operands)}, row, column")


def emit_place_in_warp(out: SourceWriter, atoms: int) -> None:
    """Of a thread, by its number."""
    text, in_row = "A thread's first row of the block's, and its first column of each eight.", f"u32({log2(ROW_LANES)})"
    with device_function(out, "place_in_warp", ("thread",), text):
        first_row, lane = f"u32(thread >> u32({log2(WARP)})) * u32({ATOM * atoms})", f"u32(thread & u32({WARP - 1}))"
        out.line(f"row = u32({first_row} + u32({lane} >> {in_row}))")
        out.line(f"return row, u32(u32(thread & u32({ROW_LANES - 1})) * u32({LANE_COLUMNS}))")


def emit_keep_note(out: SourceWriter, name: str, text: str, words: tuple[str, ...], addresses: tuple[str, ...]) -> None:
    """``name(note, ...)``: words of the item, then addresses, known to a warp but not in registers."""
    with device_function(out, name, ("note", *words, *addresses), text):
        out.line("first = u32(1) if u32(ptx.thread_index() & u32(31)) == u32(0) else u32(0)")
        halves = [half for one in addresses for half in (f"u32({one} & u64({2**32 - 1}))", f"u32({one} >> u64(32))")]
        at = 0
        for four in (words, *(halves[i : i + 4] for i in range(0, len(halves), 4))):
            to = "note" if at == 0 else f"u32(note + u32({at}))"
            if four:
                out.line(f"ptx.store_shared_words4({to}, {', '.join((*four, *['u32(0)'] * 4)[:4])}, first)")
            at += CHUNK
        out.line("ptx.warp_barrier()")
