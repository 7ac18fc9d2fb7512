"""What a composed call's launches read: its arrays as products want them, omega, and what is kept for the way back."""

from __future__ import annotations

from flurka_numba.gpu.composed.features import random_rows
from flurka_numba.gpu.composed.matrix import Extent
from flurka_numba.gpu.recorder import GpuRecorder
from splat_numba.gen.schedules.tensor import ROW_ALIGNMENT, Tensor, contiguous, padded_bytes, padded_strides
from splat_numba.gen.targets.simt.target import SIMT


class Operands:
    """Of one recording, forward or back."""

    def __init__(self, recorder: GpuRecorder) -> None:
        self.recorder, self.problem = recorder, recorder.problem
        self.sides = self.problem.batch, self.problem.heads

    @property
    def slots(self) -> Extent:
        """Of keys, which are slots if there are projections."""
        return Extent(*self.sides, self.problem.slots)

    def array(self, name: str) -> Tensor:
        """An array of the call."""
        shared = name == "proj_v" and self.problem.shared_proj
        return self.readable(self.recorder.operand("proj_k" if shared else name))

    def readable(self, tensor: Tensor) -> Tensor:
        """As the target's products read it: simt's take any strides."""
        return tensor if self.recorder.target == SIMT.name else self.recorder.readable(tensor)

    def kept(self, extent: Extent, columns: int) -> Tensor:
        """A float32 matrix that is read on the way back."""
        sizes = (extent.batch, extent.heads, extent.rows, columns)
        place = self.recorder.kept(padded_bytes(sizes, 4))
        return Tensor(sizes, padded_strides(sizes, 4), "float32", *place)

    @property
    def omega(self) -> Tensor | None:
        """Float32 (rows, head_dim)."""
        place, dim = self.recorder.omega, self.problem.head_dim
        if place is None:
            return None
        sizes = (1, 1, random_rows(self.problem), dim)
        omega = Tensor(sizes, contiguous(sizes, dim, 4), "float32", *place)
        whole = self.recorder.target == SIMT.name or 4 * dim % ROW_ALIGNMENT == 0
        return self.recorder.builder.readable(omega, copied=not whole)
