"""CpuPlan: what the text of a CPU kernel depends on. Sizes of arrays are no part of it: one text serves them all."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.problem import Problem
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.machine import Machine

SOFTMAX = "softmax"  # the feature map of low-rank attention: its "omega" are the compressed keys of each head
FORWARD = ("out",)


@dataclass(frozen=True, slots=True)
class CpuPlan:
    """What is decided before text is printed.

    feature_map: a formula, "favor", "rfa", or "softmax" for low-rank attention. denominator: as Problem has it. wants:
    ("out",), or of what gradients are to be found: "q", "keys" and "values" (tokens, or the slots made of them).
    width: numbers in a vector. rows: of a register tile. tile_rows: tokens that go through the feature map together.
    tile_tokens: tokens of a projection that are staged together.
    """

    method: str
    dtype: str
    compute_dtype: str
    feature_map: FeatureMap | str
    eps: float
    denominator: str
    wants: tuple[str, ...]
    width: int
    rows: int
    tile_rows: int = 32  # with the state of a head 64 wide 40 KiB, a first-level cache; 64 rows are as fast
    tile_tokens: int = 128  # of a head 64 wide 32 KiB; 64 and 256 are as fast

    @property
    def unit(self) -> int:
        """Numbers that padded sizes are multiples of, so that register tiles need no edges."""
        return max(2 * self.width, self.rows)

    @property
    def proj_apart(self) -> int:
        """Numbers from row to row of a staged projection: no power of two, whose rows would share a few cache sets."""
        return self.tile_tokens + self.width

    @property
    def gradients(self) -> bool:
        """Whether this is the text of gradients."""
        return self.wants != FORWARD

    @property
    def linear(self) -> bool:
        """Whether the feature map begins with a product with weights."""
        return isinstance(self.feature_map, str)

    def stabilised(self, side: str) -> bool:
        """Whether features of "query" or "key" rows are stabilised by a number of the head's."""
        return self.feature_map == "favor" and side == "key"

    @property
    def keeps_exponentials(self) -> bool:
        """Whether features are wanted without their eps too: the difference has few digits where the eps is larger."""
        return self.feature_map == "favor" and self.gradients

    @property
    def weighs(self) -> bool:
        """Whether the gradient of the feature map's weights is wanted, which are the keys of low-rank attention."""
        return self.feature_map == SOFTMAX and "keys" in self.wants

    @property
    def absorbs(self) -> bool:
        """Whether the gradient of the state is wanted."""
        return "values" in self.wants or ("keys" in self.wants and self.feature_map != SOFTMAX)

    @property
    def key_dtype(self) -> str:
        """Of what goes through the feature map on the keys' side: tokens, or slots that we computed."""
        return self.dtype if self.method == "kernel" else self.compute_dtype

    @property
    def result_dtype(self) -> str:
        """Of what is stored: gradients are rounded by who asked for them, once all their parts are summed."""
        return self.compute_dtype if self.gradients else self.dtype

    @property
    def traits(self) -> str:
        """For names of files."""
        name = self.feature_map.name if isinstance(self.feature_map, FeatureMap) else self.feature_map
        kind = "_".join(("gradient", *self.wants)) if self.gradients else "forward"
        return f"{self.method}_{name}_{self.dtype}_{kind}"

    def padded(self, size: int) -> int:
        """``size``, rounded up to whole units."""
        return -(-size // self.unit) * self.unit


def make_plan(problem: Problem, wants: tuple[str, ...], machine: Machine) -> CpuPlan:
    """The plan for a problem on a machine."""
    return CpuPlan(
        method=problem.method,
        dtype=problem.dtype,
        compute_dtype=problem.compute_dtype,
        feature_map=SOFTMAX if problem.feature_map is None else problem.feature_map,
        eps=problem.eps,
        denominator=problem.denominator if problem.method != "low_rank" else "plain",
        wants=wants,
        width=machine.lanes(ITEMSIZE[problem.compute_dtype]),
        rows=machine.register_rows,
    )
