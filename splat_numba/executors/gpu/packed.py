"""The packed operators on a GPU: over its arrays as they are, or over NumPy's, which are copied there and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from numpy.typing import NDArray

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.executors.gpu.call import download, upload
from splat_numba.executors.packed.machine import kept
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.packed.lists import MOST_PAIRS, PackedLists
from splat_numba.gen.packed.problem import PackedProblem
from splat_numba.gen.plans.machine import FIRST_WITH_HALVES
from splat_numba.gen.schedules.schedule import Schedule
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.gen.targets.packed import in_place, packed_schedule
from splat_numba.runtime.arrays import Array
from splat_numba.runtime.cuda.arrays import GpuArray, check_same_device, contiguous_array
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.frameworks import OURS, Framework, describe_operand, framework_of, known_framework
from splat_numba.runtime.cuda.memory import DeviceArray
from splat_numba.runtime.cuda.ready import ReadyCall
from splat_numba.runtime.recent import Recent
from splat_numba.settings import Settings

PACKED_AXES = 3  # (batch, heads, pairs)


@dataclass(frozen=True, slots=True)
class MaskLists:
    """What GPUs read of a mask or of its transpose, and the calls over it that were made ready last."""

    lists: PackedLists
    ready: Recent[ReadyCall] = field(default_factory=lambda: Recent(16))


_states: dict[tuple[int, bool], MaskLists] = {}


def lists_of(acsr: ACSR, *, transposed: bool) -> MaskLists:
    """Kept as long as the mask. Raises ArgumentError for one with too many pairs."""
    if acsr.nnz >= MOST_PAIRS:
        raise ArgumentError(
            f"acsr wanted with fewer than 2**31 pairs on a GPU, got {acsr.nnz}. Take a part of the rows at a time, or "
            "give arrays on the CPU."
        )
    return kept(_states, acsr, transposed, lambda table: MaskLists(PackedLists.of(table)))


@dataclass(frozen=True, slots=True)
class GpuView:
    """A framework's array, and where it is with all its axes."""

    array: Any
    whole: GpuArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all axes."""
        return self.whole.shape

    @property
    def strides(self) -> tuple[int, ...]:
        """In bytes."""
        return self.whole.strides

    @property
    def itemsize(self) -> int:
        """Bytes of a number."""
        return ITEMSIZE[self.whole.dtype]

    @property
    def tensor(self) -> Tensor:
        """As a schedule has it; packed values are tokens of one number."""
        sizes, strides = self.shape, self.strides
        if len(sizes) == PACKED_AXES:
            sizes, strides = (*sizes, 1), (*strides, self.itemsize)
        batch, heads, rows, dim = sizes
        to_batch, to_head, to_row, unit = strides
        return Tensor((batch, heads, rows, dim), (to_batch, to_head, to_row, unit), self.whole.dtype)


@dataclass(frozen=True, slots=True)
class Given:
    """An argument and its description, whose axes are those that it has."""

    array: Any
    described: GpuArray

    @property
    def shape(self) -> tuple[int, ...]:
        """As the caller laid it out."""
        return self.described.shape

    @property
    def dtype(self) -> str:
        """The name of its dtype."""
        return self.described.dtype


@dataclass(frozen=True, slots=True)
class GpuMachine:
    """One call's: arrays are of the framework and on the GPU of its first argument, ``like``, which is called name."""

    framework: Framework
    name: str
    like: Any
    first: GpuArray

    @classmethod
    def of(cls, name: str, like: Any) -> GpuMachine:
        """Raises ArgumentError, ArgumentTypeError, BackendError for an array that cannot be read on a GPU."""
        framework = framework_of(like) or known_framework(name, like)
        return cls(framework, name, like, describe_operand(name, like, framework))

    def read(self, name: str, array: Any) -> Given:
        """An array as it is."""
        described = describe_operand(name, array, self.framework, self.name)
        check_same_device({self.name: self.first, name: described}, self.name)
        return Given(array, described)

    def view(self, given: Given, axes: int) -> GpuView:
        """With axes of size 1 before the others."""
        return _whole(given.array, given.described, axes - len(given.shape))

    def empty(self, shape: tuple[int, ...], dtype: str, missing: int) -> GpuView:
        """A fresh array of the framework's."""
        array = self.framework.empty(shape[missing:], dtype, self.like)
        address = self.framework.address(array)
        return GpuView(array, contiguous_array(shape, dtype, self.first.device, address, self.first.kind))

    def export(self, view: GpuView, dtype: str, missing: int, like: Any) -> Any:
        """The array that empty() made."""
        return view.array

    def run(
        self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, GpuView], settings: Settings
    ) -> None:  # fmt: skip
        """In the order of the framework's current stream."""
        run_on_gpu(self.framework, problem, acsr, arrays, settings)


def _whole(array: Any, found: GpuArray, missing: int) -> GpuView:
    shape, strides = (1,) * missing + found.shape, (0,) * missing + found.strides
    return GpuView(array, GpuArray(found.pointer, shape, strides, found.dtype, found.device, found.kind))


def run_on_gpu(
    framework: Framework, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, GpuView], settings: Settings
) -> None:  # fmt: skip
    """Write the last array. Checks are done; a call like an earlier one over the mask is a look-up and launches."""
    views = tuple(arrays.values())
    ordinal, mask = views[0].whole.device, lists_of(acsr, transposed=problem.transposed)
    key = problem, settings, ordinal, tuple((one.shape, one.strides) for one in views)
    ready = mask.ready.find(key) or mask.ready.keep(key, _make_ready(problem, mask.lists, arrays, ordinal, settings))
    given = tuple(one.array for one in views[:-1])
    stream = framework.stream(given, ordinal)
    scratch = ready.run([one.whole.pointer for one in views], stream, framework, given[0])
    framework.finish(stream)
    del scratch


def _make_ready(
    problem: PackedProblem, lists: PackedLists, arrays: Mapping[str, GpuView], ordinal: int, settings: Settings
) -> ReadyCall:  # fmt: skip
    gpu = device(ordinal)
    if ITEMSIZE[problem.dtype] == 2 and gpu.capability < FIRST_WITH_HALVES:
        raise ArgumentTypeError(
            f"{next(iter(arrays))} wanted as float32 or float64 on compute capability {gpu.capability[0]}."
            f"{gpu.capability[1]}, which cannot round pairs of 16-bit numbers, got {problem.dtype}. Convert the arrays."
        )
    tensors = {name: named(one.tensor, name) for name, one in arrays.items()}

    def schedule_for(copied: frozenset[str]) -> Schedule:
        return packed_schedule(problem, lists, tensors, gpu.as_planned, copied)

    return ReadyCall(in_place(tensors), schedule_for, gpu, settings, keep=lists)


def named(tensor: Tensor, name: str) -> Tensor:
    """The array in a buffer of that name."""
    return Tensor(tensor.sizes, tensor.strides, tensor.dtype, name)


@dataclass(frozen=True, slots=True)
class UploadingExecutor:
    """NumPy arrays: copied to the first GPU, and the result back."""

    name: ClassVar[str] = "cuda"

    def run(
        self, problem: PackedProblem, acsr: ACSR, arrays: Mapping[str, NDArray[Any]], settings: Settings
    ) -> None:  # fmt: skip
        """Raises BackendError without a GPU."""
        *names, last = arrays
        gpu, dtype = device(0), problem.dtype
        copies = {name: upload(Array(arrays[name], dtype, "numpy"), gpu) for name in names}
        copies[last] = DeviceArray(gpu, arrays[last].shape, dtype)
        views = {name: _whole(one, OURS.describe(name, one), 0) for name, one in copies.items()}
        run_on_gpu(OURS, problem, acsr, views, settings)
        arrays[last][...] = download(copies[last], arrays[last].dtype)


UPLOADING = UploadingExecutor()
