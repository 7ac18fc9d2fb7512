"""An item's results, from registers to memory: out divided by the row's sum, and lse. Or back, where a pass resumes."""

from __future__ import annotations

from splat_numba.gen.boxes.passes import GROUP_ROWS, Traits
from splat_numba.gen.language.lane_layout import MATRIX
from splat_numba.gen.language.writer import SourceWriter


def rows_early(traits: Traits) -> bool:
    """Whether rows are read before the loop over tiles, which hides the wait but keeps two registers busy in it."""
    return traits.groups < 3 or traits.resumes


def emit_rows(out: SourceWriter, traits: Traits) -> None:
    """This thread's two rows."""
    out.lines(
        f"""
        row_at = rows + u64(4) * (u64(rank) * u64({traits.tile_q}) + u64(warpgroup * u32({GROUP_ROWS}) + row_in_group))
        row_0 = ptx.load_word(row_at)
        row_1 = ptx.load_word(row_at + u64({4 * MATRIX}))
        """
    )


def emit_for_rows(out: SourceWriter, function: str, parameters: tuple[str, ...]) -> None:
    """Call a function for each of the two rows."""
    for row in (0, 1):
        out.line(f"{function}({row}, row_{row}, {', '.join(parameters[2:])})")
