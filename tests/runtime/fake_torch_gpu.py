"""PyTorch's own tensors on the CPU, taken for those of a GPU whose driver only notes what it is asked."""

# ruff: noqa: F811 - fixtures are asked for by name

from dataclasses import replace

import pytest

from splat_numba import api
from splat_numba.executors.gpu import backward as gpu_backward
from splat_numba.executors.gpu import call as gpu_call
from splat_numba.executors.gpu.alike import Alike
from splat_numba.runtime.cuda import frameworks
from tests.runtime.fake_cuda import fake  # noqa: F401 - of which this is one

torch = pytest.importorskip("torch")
operators = pytest.importorskip("splat_numba.bridges.torch.operators")


@pytest.fixture
def torch_gpu(fake, monkeypatch):
    """The driver. Give backend='cuda': 'auto' asks the tensors themselves."""
    kind = type(frameworks.TORCH)
    described = kind.describe
    monkeypatch.setattr(frameworks.lookup, "on_gpu", lambda one: isinstance(one, torch.Tensor))
    monkeypatch.setattr(kind, "describe", lambda self, name, one: replace(described(self, name, one), device=0))
    monkeypatch.setattr(kind, "stream", lambda *_: 0)
    for module in (gpu_call, gpu_backward):
        monkeypatch.setattr(module, "_ready", Alike(64))
    forget()
    yield fake
    forget()


def forget():
    """What was learned of calls on this GPU, while there still is one."""
    for one in (operators.attended, operators.gone_back, api._known):
        one.clear()
