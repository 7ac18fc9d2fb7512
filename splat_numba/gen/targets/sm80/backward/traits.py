"""What the text of a gradient kernel depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from splat_numba.gen.boxes.passes import Traits
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.plans.backward import QUERIES
from splat_numba.gen.targets.gpu.gradient_kernels import (
    ADDED,
    FINISHED,
    NOWHERE,
    ROUNDED,
    WRITTEN,
    GradientKernel,
    names_written,
)


@dataclass(frozen=True, slots=True)
class GradientTraits(GradientKernel):
    """stored: how results are, as in gradient_kernels; ragged: key lengths differ between batch entries; kept: NOWHERE,
    WRITTEN or READ; padded: some keys are padding: rows of a kernel that writes slopes, which must be 0 there, or keys
    of one that reads them.
    """

    stored: str
    ragged: bool
    kept: str = NOWHERE
    padded: bool = False

    @property
    def slopes(self) -> bool:
        """Whether gradients of the scores are made."""
        return self.kept == WRITTEN or self.wanted != ("dv",)

    @property
    def paired(self) -> bool:
        """Whether two warps share 32 rows, of which one has dv and the other dk: what a warp reads of right tiles then
        serves twice the rows, with as many registers. Both sides have rows of one length.
        """
        boxes = self.boxes
        same = boxes.groups == 1 and boxes.head_dim == boxes.value_dim
        return self.kept == WRITTEN and same and set(self.wanted) == {"dk", "dv"}

    @property
    def limited(self) -> bool:
        """Whether right tiles reach beyond the key length."""
        return self.ragged and self.of == QUERIES

    @property
    def walked(self) -> Traits:
        """The boxes as a walk over tiles sees them: only keys have lengths, and signs are the scale's."""
        return replace(self.boxes, ragged=self.limited, negate=False, resumes=False, hands_on=False)

    @property
    def packs(self) -> bool:
        """Whether weights are kept rounded, two a word, while dP is made."""
        return not self.columns_are_queries and ITEMSIZE[self.boxes.dtype] == 2

    @property
    def rounds(self) -> bool:
        """Whether results are stored in the arrays' dtype."""
        return self.stored in {ROUNDED, FINISHED}

    @property
    def adds(self) -> bool:
        """Whether there are sums of an earlier launch."""
        return self.stored in {ADDED, FINISHED}

    @property
    def written(self) -> tuple[str, ...]:
        """Names of the arrays that the kernel is given for its results, in the order of the gradients' products."""
        return names_written(self.dims, self.stored)
