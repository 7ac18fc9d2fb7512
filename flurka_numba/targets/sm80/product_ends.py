"""What a tensor-core product does with its sums before they are stored: division and its way back, a map's slope."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.formulas import gpu_slope, gpu_text
from flurka_numba.targets.gpu.lanes import QUAD
from flurka_numba.targets.simt.divide import emit_delta, emit_inverse_of_sum
from flurka_numba.targets.simt.text import result_parameters
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.language.lane_layout import LANE_COLUMNS, LANE_ROWS, MATRIX, ROW_LANES, SUMS
from splat_numba.gen.targets.gpu.parts import KernelWriter


@dataclass(frozen=True, slots=True)
class Divide:
    """Numerators over the divisor of their row, the product's last column, which is not stored: simt's divide.py.

    denominator, eps: as in Problem; columns: of numerators, all in one tile.
    """

    denominator: str
    eps: float
    columns: int

    @property
    def name(self) -> str:
        """In a text's name."""
        return f"divided{self.columns}_{self.denominator}"

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """(name, kind) of those that the text has for it."""
        return (("scales", "l"),)

    @property
    def not_stored(self) -> int:
        """Columns at the end."""
        return 1

    def emit_rows(self, out: KernelWriter, sums: int) -> None:
        """``total`` divided."""
        for row in range(LANE_ROWS):
            _emit_divisor(out, self, row)
            with out.block(f"for j in range({sums // SUMS})"):
                for x in range(LANE_COLUMNS):
                    at = _total(row, x)
                    out.line(f"{at} = ptx.select_real({at} * inverse, f32(0.0), nonzero)")

    def emit_number(self, out: KernelWriter, four: list[str]) -> None:
        """All is done."""


@dataclass(frozen=True, slots=True)
class Slope:
    """Each number times the slope of a feature map at that of the matrix x at its place. x: its dtype."""

    feature_map: FeatureMap
    x: str

    @property
    def name(self) -> str:
        """In a text's name."""
        return f"slope_{self.feature_map.name}_{self.x}"

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """(name, kind) of those that the text has for it."""
        return result_parameters("x")

    @property
    def not_stored(self) -> int:
        """Columns at the end."""
        return 0

    def emit_rows(self, out: KernelWriter, sums: int) -> None:
        """Rows are as they are."""

    def emit_number(self, out: KernelWriter, four: list[str]) -> None:
        """Four numbers of ``row`` from ``column`` on; rows of x are whole chunks."""
        out.line("x_at = x + u64(entry) * x_batch + u64(head) * x_head + u64(row) * x_row")
        out.line(f"x_at = x_at + u64({ITEMSIZE[self.x]}) * u64(column) if when != u32(0) else x")
        if self.x == "float32":
            out.line("x_0, x_1, x_2, x_3 = ptx.load_reals4(x_at)")
        else:
            for i in range(0, QUAD, 2):
                out.line(f"x_{i}, x_{i + 1} = ptx.unpack_{self.x}(ptx.load_pair(x_at + u64({2 * i})))")
        for i, name in enumerate(four):
            out.line(f"y = {gpu_text(self.feature_map.source, f'x_{i}')}")
            out.line(f"{name} = {name} * {gpu_slope(self.feature_map.derivative_source, f'x_{i}', 'y')}")


@dataclass(frozen=True, slots=True)
class DividePull:
    """From numerators with the sum beside them to the gradients of both, from that of what Divide makes, the matrix
    dout. denominator, eps, columns: as in Divide; dout: its dtype, of 16 bits.
    """

    denominator: str
    eps: float
    columns: int
    dout: str

    @property
    def name(self) -> str:
        """In a text's name."""
        return f"pulled{self.columns}_{self.denominator}_{self.dout}"

    @property
    def parameters(self) -> tuple[tuple[str, str], ...]:
        """(name, kind) of those that the text has for it."""
        return (*result_parameters("dout"), ("scales", "l"))

    @property
    def not_stored(self) -> int:
        """Columns at the end."""
        return 0

    def emit_rows(self, out: KernelWriter, sums: int) -> None:
        """``total`` becomes the gradients. dout is read twice, as a lane has no room for what it has of a row."""
        for row in range(LANE_ROWS):
            _emit_divisor(out, self, row)
            this_row = f"u32(first_row + warp_row + u32(lane // u32({ROW_LANES})) + u32({MATRIX * row}))"
            with out.part("find_row_of_dout", "Where a row of dout begins, if it is there.", this_row=this_row):
                out.line("in_rows = u32(1) if this_row < rows else u32(0)")
                out.line("dout_at = dout + u64(entry) * dout_batch + u64(head) * dout_head")
                out.line("dout_at = dout_at + u64(this_row if in_rows != u32(0) else u32(0)) * dout_row")
            out.line("dot = f32(0.0)")
            with out.block(f"for j in range({sums // SUMS})"):
                self._emit_pair(out)
                for x in range(LANE_COLUMNS):
                    product = f"d_{x} * ({_total(row, x)} * inverse)"
                    out.line(f"dot += ptx.select_real({product}, f32(0.0), nonzero)")
            emit_sum_of_row(out, "dot")
            emit_delta(out, self.denominator)
            with out.block(f"for j in range({sums // SUMS})"):
                self._emit_pair(out)
                for x in range(LANE_COLUMNS):
                    at, last = _total(row, x), f"u32(1) if u32(place + u32({x})) == u32({self.columns}) else u32(0)"
                    out.line(f"{at} = ptx.select_real(d_{x} * inverse, f32(0.0), nonzero)")
                    out.line(f"{at} = ptx.select_real(delta, {at}, {last})")

    def _emit_pair(self, out: KernelWriter) -> None:
        """``d_0`` and ``d_1`` of dout at a lane's columns, from ``place`` on; 0 beyond the last."""
        with out.part("read_dout", "Two neighbours of dout, 0 where there are none.", eight="j"):
            out.line(
                f"place = u32(u32({MATRIX}) * u32(eight) + u32({LANE_COLUMNS}) * u32(lane & u32({ROW_LANES - 1})))"
            )
            out.line(f"in_row = in_rows if place < u32({self.columns}) else u32(0)")
            out.line("at = dout_at + u64(2) * u64(place) if in_row != u32(0) else dout")
            out.line(f"d_0, d_1 = ptx.unpack_{self.dout}(ptx.load_pair(at))")
            out.line("d_0 = ptx.select_real(d_0, f32(0.0), in_row)")
            second = f"in_row if u32(place + u32(1)) < u32({self.columns}) else u32(0)"
            out.line(f"d_1 = ptx.select_real(d_1, f32(0.0), {second})")

    def emit_number(self, out: KernelWriter, four: list[str]) -> None:
        """All is done."""


def _total(row: int, x: int) -> str:
    """A lane's sum in one of its two rows, of one of its two columns of an eight ``j``."""
    return f"total[{SUMS} * j + {LANE_COLUMNS * row + x}]"


def _emit_divisor(out: KernelWriter, one: Divide | DividePull, row: int) -> None:
    """1 / the divisor of one of a lane's rows, whose sum is in one of four lanes: they all add up what they have."""
    eight, place = divmod(one.columns, MATRIX)
    owner, x = divmod(place, LANE_COLUMNS)
    given = {"sum_of_row": f"total[{SUMS * eight + LANE_COLUMNS * row + x}]"}
    with out.part("find_divisor", "1 / the divisor of a row, and whether it counts.", **given):
        out.line(f"owns = u32(1) if u32(lane & u32({ROW_LANES - 1})) == u32({owner}) else u32(0)")
        out.line("den = ptx.select_real(sum_of_row, f32(0.0), owns)")
        emit_sum_of_row(out, "den")
        emit_inverse_of_sum(out, one.denominator, one.eps)


def emit_sum_of_row(out: KernelWriter, name: str) -> None:
    """A number of each of the four lanes that share a row becomes their sum."""
    for apart in (1, 2):
        out.line(f"{name} += ptx.shuffle_xor({name}, u32({apart}))")


End = Divide | DividePull | Slope
