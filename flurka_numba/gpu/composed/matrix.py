"""What launches over matrices of all batch entries and heads are told: strides, extents and key lengths."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.feature_maps import FeatureMap
from flurka_numba.targets.sm80.product_ends import End
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.schedules.schedule import Place
from splat_numba.gen.schedules.tensor import Tensor, as_word

FLOAT_BYTES = 4  # of scratch memory's numbers


@dataclass(frozen=True, slots=True)
class Extent:
    """How many batch entries, heads and rows a launch is for."""

    batch: int
    heads: int
    rows: int

    @property
    def pairs(self) -> int:
        """Of batch entries and heads."""
        return self.batch * self.heads


@dataclass(frozen=True, slots=True)
class Limit:
    """lengths: the place of int32 key lengths, one a batch entry, None for none. first: the token that row 0 is."""

    lengths: Place | None = None
    first: int = 0


NO_LIMIT = Limit()


@dataclass(frozen=True, slots=True)
class Fused:
    """What a tensor-core product does beside: feature_map: that A is taken through on its way in; end: what happens to
    sums before they are stored; scales, matrices: what that reads, by the names of its parameters.
    """

    feature_map: FeatureMap | None = None
    end: End | None = None
    scales: Place | None = None
    matrices: tuple[tuple[str, Tensor], ...] = ()


ALONE = Fused()


def stride_numbers(tensor: Tensor | None, name: str, axes: tuple[str, ...]) -> dict[str, int]:
    """The parameters of a text: strides in bytes in the order of axes, as unsigned numbers, 0 for axes of one place,
    which all batch entries or heads share.
    """
    if tensor is None:
        return {f"{name}_{axis}": 0 for axis in axes}
    steps = (0 if size == 1 else as_word(step) for step, size in zip(tensor.strides, tensor.sizes, strict=True))
    return {f"{name}_{axis}": step for axis, step in zip(axes, steps, strict=False)}


def is_turned(tensor: Tensor) -> bool:
    """Whether what is adjacent in memory are the numbers of its columns, not those of its rows."""
    return tensor.strides[3] != ITEMSIZE[tensor.dtype]


def in_lines(tensor: Tensor) -> Tensor:
    """The tensor with rows of adjacent numbers, turned if need be."""
    return tensor.turned if is_turned(tensor) else tensor
