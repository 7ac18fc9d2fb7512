"""Text of closed-form bounds: expressions in ``row``, ``delta`` (seq_kv - seq_q), seq_q and seq_kv."""

from __future__ import annotations

from splat_numba.formats.bounds import Bound, Chunk, Const, End, Maximum, Minimum, Position
from splat_numba.formats.closed_form import Edge, Lattice


def render_position(position: Position) -> str:
    """Text of a row's place on the column axis."""
    terms = ["row", *(["delta"] if position.aligned else [])]
    return " + ".join(terms) + _moved(position.shift)


def _moved(shift: int) -> str:
    return f" {'-' if shift < 0 else '+'} {abs(shift)}" if shift else ""


def render_bound(bound: Bound) -> str:
    """Text of a bound in terms of row, delta (seq_kv - seq_q) and seq_kv."""
    match bound:
        case Const(value, aligned):
            return f"delta{_moved(value)}" if aligned else str(value)
        case End():
            return "seq_kv"
        case Position():
            return render_position(bound)
        case Chunk(size, position, shift, moved):
            start = f"({render_position(position)}) // {size} * {size}"
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
            return f"min({value}, limit)"
        case _:
            return f"min(max({render_bound(bound)}, 0), limit)"


def render_edge(edge: Edge | None) -> str:
    """Text of a row edge, clamped to [0, seq_q]."""
    if edge is None:
        return "seq_q"
    if edge.aligned:
        return f"min(max({edge.value} - delta, 0), seq_q)"
    return f"min({edge.value}, seq_q)" if edge.value > 0 else "0"


def render_base(lattice: Lattice) -> str:
    """Text of the first column of a lattice; ``row`` is any row of the class."""
    if not lattice.diagonal:
        return str(lattice.shift)
    return f"({render_position(Position(lattice.shift, lattice.aligned))}) % {lattice.step}"
