"""Traits of the images of states, and what follows from them, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from flurka_numba.targets.sm90.lanes import CHUNK
from flurka_numba.targets.sm90.scales import is_scaled
from flurka_numba.targets.sm90.shape import chunks
from splat_numba.gen.targets.sm90.shape import PRODUCT_DEPTH, SPAN_BYTES, spans

SUM_STEP = PRODUCT_DEPTH  # columns of the step that holds z


@dataclass(frozen=True, slots=True)
class ImageTraits:
    """head_dim, value_dim: elements; dtype: of the images. natural_features: the first image has its features in their
    own order, for those that come out of a product; natural_values: the turned one its values, for rows of values that
    a product reads from shared memory. of: what the shares are sums over, "keys" or "queries". compressed: values of
    keys are slots.
    """

    head_dim: int
    value_dim: int
    dtype: str
    natural_features: bool = False
    natural_values: bool = False
    of: str = "keys"
    compressed: bool = False

    @property
    def values_scaled(self) -> bool:
        """Whether values have a scale, which results undo."""
        return self.compressed and self.of == "keys" and is_scaled(self.dtype)

    @property
    def blocks(self) -> tuple[int, int]:
        """Blocks of features and of values that make up a head's state."""
        return spans(self.head_dim), spans(self.value_dim)


def turned_rows(head_dim: int) -> int:
    """Rows of a span of the image for rows of values."""
    return CHUNK * chunks(head_dim)


def turned_bytes(head_dim: int, value_dim: int) -> int:
    """Bytes of that image: values, then the step of z."""
    return spans(CHUNK * chunks(value_dim) + SUM_STEP) * turned_rows(head_dim) * SPAN_BYTES
