"""GPUs that kernels run on: their facts, their context, and which of them one array is on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from splat_numba.errors import BackendError
from splat_numba.gen.language.entry import Entry
from splat_numba.gen.plans.machine import Gpu, gpu_of
from splat_numba.gen.targets.registry import capabilities
from splat_numba.runtime.cuda.driver import ask, driver


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. ordinal: the driver's number; context: the handle of its primary context; stream: one of ours, that
    does not wait for the default stream.
    """

    ordinal: int
    name: str
    capability: tuple[int, int]
    multiprocessors: int
    context: int
    stream: int

    @property
    def as_planned(self) -> Gpu:
        """The GPU as planners see it."""
        return gpu_of(self.capability, self.multiprocessors)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Make it this thread's device for a while."""
        entered = self.enter()
        try:
            yield
        finally:
            if entered:
                self.leave()

    def enter(self) -> bool:
        """Make it this thread's device; False where it is already. As cheap as that may be: each call asks."""
        cu = driver()
        if int(cu.cuCtxGetCurrent()[1]) == self.context:
            return False
        ask(cu.cuCtxPushCurrent, self.context)
        return True

    def leave(self) -> None:
        """Undo enter()."""
        ask(driver().cuCtxPopCurrent)


@cache
def device(ordinal: int) -> Device:
    """A GPU by number. Raises BackendError where there is none, or one of another architecture."""
    cu = driver()
    handle = ask(cu.cuDeviceGet, ordinal)
    attribute = cu.CUdevice_attribute
    name = ask(cu.cuDeviceGetName, 256, handle).split(b"\0")[0].decode()
    major, minor, multiprocessors = (
        int(ask(cu.cuDeviceGetAttribute, one, handle))
        for one in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
            attribute.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
        )
    )
    check_capability(name, (major, minor))
    context = ask(cu.cuDevicePrimaryCtxRetain, handle)
    ask(cu.cuCtxPushCurrent, context)
    try:
        stream = ask(cu.cuStreamCreate, int(cu.CUstream_flags.CU_STREAM_NON_BLOCKING))
    finally:
        ask(cu.cuCtxPopCurrent)
    return Device(ordinal, name, (major, minor), multiprocessors, int(context), int(stream))


def check_capability(name: str, capability: tuple[int, int]) -> None:
    """Raise BackendError for a GPU that no target runs on."""
    known = capabilities()
    if capability not in known:
        wanted = ", ".join(f"{one[0]}.{one[1]}" for one in sorted(known))
        major, minor = capability
        raise BackendError(
            f"backend 'cuda' wanted a GPU of compute capability {wanted}, got {name} of {major}.{minor}. "
            "Copy the arrays to the CPU and give backend='cpu'."
        )


def check_runs(entry: Entry, found: Device) -> None:
    """Raise BackendError for a GPU that does not run a text's machine code."""
    major, minor, *letter = entry.capability
    if found.capability != (major, minor) and (letter or found.capability[0] != major or found.capability[1] < minor):
        mine = ".".join(map(str, found.capability))
        raise BackendError(
            f"backend 'cuda' wanted a GPU of compute capability {major}.{minor} for these options, got {found.name} of "
            f"{mine}. Copy the arrays to the CPU and give backend='cpu'."
        )


def device_of_pointer(pointer: int) -> int:
    """The number of the GPU whose memory ``pointer`` is in; 0 for the null pointer of an empty array."""
    if not pointer:
        return 0
    cu = driver()
    return int(ask(cu.cuPointerGetAttribute, cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, pointer))
