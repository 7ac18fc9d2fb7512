"""As much of PyTorch as is asked for, where it may not be installed: tensors on a GPU, and who records them."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest


def _function(*_):
    return NotImplemented


class Tensor:
    """Nothing is at its address. Attributes are changed to make it another kind of tensor."""

    __torch_function__ = classmethod(_function)
    __torch_dispatch__ = None
    is_cuda = True
    requires_grad = is_nested = is_quantized = is_meta = False
    negated = wrapped = tangent = None
    layout = "strided"

    def __init__(self, shape=(2, 3, 8, 16), pointer=4096, dtype="torch.bfloat16", ordinal=1, strides=None, **more):
        self.shape, self.dtype, self._pointer, self._strides = shape, dtype, pointer, strides
        self.device = SimpleNamespace(index=ordinal, type="cuda")
        for name, value in more.items():
            setattr(self, name, value)

    def data_ptr(self):
        if self.wrapped:
            raise RuntimeError("Cannot access data pointer of Tensor that doesn't have storage")
        return self._pointer

    def element_size(self):
        return 2

    def numel(self):
        size = 1
        for one in self.shape:
            size *= one
        return size

    def stride(self):
        if self._strides is not None:
            return self._strides
        steps = [1]
        for size in reversed(self.shape[1:]):
            steps.insert(0, steps[0] * size)
        return tuple(steps)

    def get_device(self):
        return self.device.index

    def is_neg(self):
        return bool(self.negated)


Tensor.__module__ = "torch"


def make():
    """A module with nothing at work: no trace, no mode, no level of forward differentiation, gradients recorded."""
    fake: Any = ModuleType("torch")  # hashable, as a namespace is not
    vars(fake).update(Tensor=Tensor, strided="strided", trace=None, modes=0, proxied=None, recording=True)
    fake.float16, fake.float32, fake.uint8 = "torch.float16", "torch.float32", "torch.uint8"
    fake.is_grad_enabled = lambda: fake.recording
    fake.compiler = SimpleNamespace(is_compiling=lambda: False)
    fake.nn = SimpleNamespace(Parameter=type("Parameter", (Tensor,), {}))
    fake.autograd = SimpleNamespace(
        graph=SimpleNamespace(increment_version=lambda _: None),
        forward_ad=SimpleNamespace(_current_level=-1, unpack_dual=lambda one: SimpleNamespace(tangent=one.tangent)),
    )
    fake._C = SimpleNamespace(
        _are_functorch_transforms_active=lambda: False,
        _get_tracing_state=lambda: fake.trace,
        _len_torch_dispatch_stack=lambda: fake.modes,
        _len_torch_function_stack=lambda: 0,
        _is_any_autocast_enabled=lambda: False,
        _TorchDispatchModeKey=SimpleNamespace(PROXY=0, FAKE=1),
        _get_dispatch_mode=lambda key: fake.proxied if key == 0 else None,
        _functorch=SimpleNamespace(is_functorch_wrapped_tensor=lambda one: bool(one.wrapped)),
        _disabled_torch_function_impl=None,
        _cuda_getCurrentRawStream=lambda _: 0,
    )
    made = []

    def empty_strided(shape, strides, *, dtype, device):
        made.append(Tensor(shape, (1 << 34) + (len(made) << 24), dtype, device.index, strides))
        return made[-1]

    fake.empty_strided = empty_strided
    return fake


@pytest.fixture
def torch(monkeypatch):
    """The stand-in instead of the module."""
    fake = make()
    monkeypatch.setitem(sys.modules, "torch", fake)
    return fake


# What a tensor may be beside numbers in memory, as changes to a plain one; and the start of what is said of it.
ODD_TENSORS = {
    "wants a gradient": ({"requires_grad": True}, "without requires_grad while gradients are recorded"),
    "negated": ({"negated": True}, "with its numbers as they are in memory"),
    "wrapped": ({"wrapped": True}, "outside torch.func's transforms"),
    "without memory": ({"_pointer": 0}, "as a tensor of numbers in memory, got one without memory"),
}
# The same of what is at work, as changes to the module.
ODD_TIMES = {
    "traced": ({"trace": object()}, "outside traces"),
    "made into a graph": ({"modes": 1, "proxied": object()}, "outside traces"),
}
