"""A driver that only notes what it is asked, for the stages of flurka_numba: each launch has its stage's parameters."""

# ruff: noqa: N802, F401 - the driver names its functions; fixtures are passed on

from types import SimpleNamespace

import pytest

from flurka_numba.gpu import call as gpu_call
from flurka_numba.gpu import vjp as gpu_vjp
from splat_numba.gen.targets.gpu.copying import AXES
from splat_numba.gen.targets.gpu.copying import ENTRY as COPY
from splat_numba.runtime.recent import Recent
from tests.runtime.fake_cuda import FakeDriver, Status, forget, fresh, install, packed_values


class StageDriver(FakeDriver):
    """``launches``: of each its stage, grid, stream and parameters."""

    @property
    def planned(self):
        """The stages' texts that were compiled."""
        return [text for text, entry in self.built.values() if entry.name != COPY]

    def cuLaunchKernel(self, function, grid, *arguments):
        _, _, threads, _, _, shared, stream, places, _ = arguments
        _, entry = self.text_and_entry(function)
        assert (threads, shared) == (entry.threads, entry.shared_bytes)
        values = packed_values(places, entry.parameters)
        self.note(entry, SimpleNamespace(stage=entry.name, grid=grid, stream=stream, **values))
        return (Status.CUDA_SUCCESS,)


@pytest.fixture
def fake(monkeypatch):
    """A GPU that is there, and calls of which nothing is remembered."""
    gpu = install(monkeypatch, StageDriver())
    monkeypatch.setattr(gpu_call, "_ready", Recent(256))
    monkeypatch.setattr(gpu_vjp, "_ready", Recent(256))
    yield gpu
    forget()


def strides_of(copy, name):
    """In bytes, of the source or the target of a copy that was launched."""
    return tuple(getattr(copy, f"{name}_{axis}") for axis in AXES)
