"""Programs for GPUs under names that XLA finds them by, on all NVIDIA GPUs that JAX has."""

from __future__ import annotations

import sys

from splat_numba.runtime.cuda.device import Device, device
from splat_numba.runtime.xla.gpu_program import GpuProgram, LoadedGpuProgram
from splat_numba.runtime.xla.register import named
from splat_numba.settings import Settings


def gpu_target_of(label: str, program: GpuProgram, settings: Settings) -> str:
    """The name under which XLA calls the program on GPUs, from now on. label: what it is, for profiles and messages.

    Raises BackendError for a GPU that does not run it, CompileError.
    """
    return named(label, program.digest(), "CUDA", lambda: LoadedGpuProgram(program, settings, _devices()))


def _devices() -> list[Device]:
    """JAX's GPUs in this process, by the driver's numbers."""
    return [device(one.local_hardware_id) for one in sys.modules["jax"].local_devices(backend="cuda")]
