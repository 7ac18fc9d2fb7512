"""A driver that only notes what it is asked, for the stages of flurka_numba: each launch has its stage's parameters."""

# ruff: noqa: N802, F401 - the driver names its functions; fixtures are passed on

from types import SimpleNamespace

import pytest

from flurka_numba.gpu import call as gpu_call
from flurka_numba.gpu import forward as gpu_forward
from flurka_numba.gpu import runner as gpu_runner
from flurka_numba.gpu import vjp as gpu_vjp
from splat_numba.runtime.cuda import lengths
from tests.runtime.fake_cuda import FakeDriver, Status, forget, fresh, install, packed_values


class StageDriver(FakeDriver):
    """``launches``: of each its stage, grid, stream and parameters. ``planned``: the stages that were compiled."""

    def __init__(self):
        super().__init__()
        self.planned = []

    def machine_code(self, plan, _settings):
        """Instead of gpu_forward's: a handle stands for the stage."""
        self.planned += plan.stages
        return [
            SimpleNamespace(code=b"", report=SimpleNamespace(symbol=f"{place + len(self.planned) - len(plan.stages)}"))
            for place, _ in enumerate(plan.stages)
        ]

    def stage_cubin(self, name, _text, entry, _settings):
        """Instead of gpu_runner's, likewise."""
        self.planned.append(SimpleNamespace(name=name, entry=entry))
        return SimpleNamespace(code=b"", report=SimpleNamespace(symbol=f"{len(self.planned) - 1}"))

    def cuLibraryGetKernel(self, _library, name):
        return Status.CUDA_SUCCESS, int(name)

    def cuLaunchKernel(self, function, grid, *arguments):
        _, _, threads, _, _, shared, stream, places, _ = arguments
        entry = self.planned[function].entry
        assert (threads, shared) == (entry.threads, entry.shared_bytes)
        values = packed_values(places, entry.parameters)
        self.launches.append(SimpleNamespace(stage=entry.name, grid=grid, stream=stream, **values))
        return (Status.CUDA_SUCCESS,)


@pytest.fixture
def fake(monkeypatch):
    """A GPU that is there, and calls of which nothing is remembered."""
    gpu = install(monkeypatch, StageDriver())
    monkeypatch.setattr(gpu_forward, "machine_code", gpu.machine_code)
    monkeypatch.setattr(gpu_forward, "_captured", set())
    monkeypatch.setattr(gpu_runner, "stage_cubin", gpu.stage_cubin)
    monkeypatch.setattr(gpu_runner, "_functions", {})
    monkeypatch.setattr(gpu_call, "_ready", type(gpu_call._ready)())
    monkeypatch.setattr(gpu_vjp, "_checked", type(gpu_vjp._checked)())
    yield gpu
    forget()


@pytest.fixture
def moves(monkeypatch):
    """The copies that were asked for: (target, its strides, source, its strides, shape, stream, types)."""
    made = []
    for module in (gpu_forward, gpu_runner, lengths):
        monkeypatch.setattr(module, "move", lambda *call: made.append(call))
    return made
