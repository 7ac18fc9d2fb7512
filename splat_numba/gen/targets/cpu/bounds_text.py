"""Text of closed-form bounds: expressions in ``row``, ``delta`` (seq_kv - seq_q), seq_q, seq_kv, and the names of the
pattern's numbers, which are arguments of a pass (`ClosedPass.numbers`).
"""

from __future__ import annotations

from splat_numba.formats.bounds import Bound, Chunk, Const, End, Maximum, Minimum, Position
from splat_numba.formats.closed_form import Edge, Lattice
from splat_numba.formats.named import is_named, parts_of


def render_position(position: Position) -> str:
    """Text of a row's place on the column axis."""
    terms = ["row", *(["delta"] if position.aligned else [])]
    return " + ".join(terms) + _moved(position.shift)


def render_number(number: int) -> str:
    """Text of an integer: by the names that it has, in parentheses where it is a sum."""
    parts, rest = parts_of(number)
    if not parts:
        return str(rest)
    text = _moved(number).strip().removeprefix("+ ")
    return text if text.isidentifier() else f"({text})"


def _moved(shift: int) -> str:
    """Text that adds an integer: `` - left``, `` + right + 1``; none for 0."""
    parts, rest = parts_of(shift)
    signed = [
        (factor, symbol.name if abs(factor) == 1 else f"{abs(factor)} * {symbol.name}") for symbol, factor in parts
    ]
    signed += [(rest, str(abs(rest)))] if rest else []
    return "".join(f" {'-' if factor < 0 else '+'} {text}" for factor, text in signed)


def render_quotient(number: str, divisor: int) -> str:
    """Text of number // divisor; a constant divisor is no division to a compiler, so that `//` serves there."""
    if is_named(divisor):
        return f"quotient({number}, {render_number(divisor)})"
    return f"{number if number.isidentifier() else f'({number})'} // {divisor}"


def render_bound(bound: Bound) -> str:
    """Text of a bound in terms of row, delta (seq_kv - seq_q) and seq_kv."""
    match bound:
        case Const(value, aligned):
            return f"delta{_moved(value)}" if aligned else render_number(value)
        case End():
            return "seq_kv"
        case Position():
            return render_position(bound)
        case Chunk(size, position, shift, moved):
            start = f"{render_quotient(render_position(position), size)} * {render_number(size)}"
            return f"{start}{' + delta' if moved else ''}{_moved(shift)}"
        case Maximum(parts):
            return f"max({', '.join(render_bound(part) for part in parts)})"
        case Minimum(parts):
            return f"min({', '.join(render_bound(part) for part in parts)})"


def render_column(bound: Bound) -> str:
    """Text of a bound clamped to [0, limit], on both sides: unclamped ones may not fit the int32 of a tile's edges."""
    match bound:
        case End():
            return "limit"
        case Const(value, False) if value <= 0:
            return "0"
        case Const(value, False):
            return f"min({render_number(value)}, limit)"
        case _:
            return f"min(max({render_bound(bound)}, 0), limit)"


def render_edge(edge: Edge | None) -> str:
    """Text of a row edge, clamped to [0, seq_q]."""
    if edge is None:
        return "seq_q"
    if edge.aligned:
        return f"min(max({render_number(edge.value)} - delta, 0), seq_q)"
    return f"min({render_number(edge.value)}, seq_q)" if edge.value > 0 else "0"


def render_base(lattice: Lattice) -> str:
    """Text of the first column of a lattice; ``row`` is any row of the class."""
    if not lattice.diagonal:
        return render_number(lattice.shift)
    place = render_position(Position(lattice.shift, lattice.aligned))
    step = render_number(lattice.step)
    if is_named(lattice.step):
        return f"{place} - {render_quotient(place, lattice.step)} * {step}"
    return f"{place if place == 'row' else f'({place})'} % {step}"
