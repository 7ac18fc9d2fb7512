"""Whether PyTorch has a hand in a call: records it for gradients, traces, transforms, imitates or casts it.

Every call of attention asks, so a plain one must be answered fast. PyTorch is not imported here. Dynamo reads these
lines too, so they are simple ones.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np

from splat_numba.runtime.tensors import is_plain

RECORDED = "recorded"  # what is_watched() says where gradients are recorded, and nothing else is at work


def is_watched(q: Any, *others: Any) -> bool | str:
    """Whether the call is to go by way of bridges.torch's door, perhaps RECORDED. The arrays may be any objects."""
    kind = type(q)
    if kind is np.ndarray or not hasattr(kind, "__torch_function__"):
        return False
    # Imported already, since there is a tensor. Not from sys.modules: Dynamo would look at all that is in there, and
    # fails where a lazy module, as transformers is one, imports others meanwhile (torch 2.11).
    import torch

    # First, since a traced call reads no further: what follows asks for things that Dynamo does not know.
    return True if torch.compiler.is_compiling() else _is_special(torch, q, others)


@lru_cache(maxsize=1)
def door() -> Any:
    """door.attend, for calls that nothing traces: an import statement takes most of a microsecond at every call."""
    from splat_numba.bridges.torch.door import attend

    return attend


def is_transformed(torch: Any) -> bool:
    """Whether a transform of torch.func or a mode is at work, whatever the tensors are."""
    transforms, dispatch_modes, function_modes, *_ = _questions(torch)
    return bool(transforms() or dispatch_modes() or (function_modes() and not only_devices(torch)))


def is_seen_as_a_whole(torch: Any, *tensors: Any) -> bool:
    """Whether something of PyTorch's sees operators alone: a trace, a transform, a mode, or a tensor's own class."""
    if torch.compiler.is_compiling():
        return True
    return is_transformed(torch) or not all(map(is_plain, map(type, tensors)))


def _is_special(torch: Any, q: Any, others: tuple[Any, ...]) -> bool | str:
    transforms, dispatch_modes, function_modes, casts, tensor, parameter, recording = _questions(torch)
    if not issubclass(type(q), tensor):
        return False  # whatever PyTorch is about
    if transforms() or dispatch_modes() or function_modes() or casts():
        return True
    recorded, found, foreign = recording(), False, False
    for one in (q, *others):
        kind: Any = type(one)
        if kind is tensor or kind is parameter or (issubclass(kind, tensor) and is_plain(kind)):
            found = found or (recorded and one.requires_grad)
        elif issubclass(kind, tensor):
            return True
        else:
            foreign = True
    return found and (foreign or RECORDED)


@lru_cache(maxsize=1)
def _questions(torch: Any) -> tuple[Any, ...]:
    """What is asked, mostly of PyTorch's private parts: looking it up takes longer than asking."""
    own = torch._C  # noqa: SLF001
    return (
        own._are_functorch_transforms_active, own._len_torch_dispatch_stack, own._len_torch_function_stack,  # noqa: SLF001
        own._is_any_autocast_enabled, torch.Tensor, torch.nn.Parameter, torch.is_grad_enabled,  # noqa: SLF001
    )  # fmt: skip


def only_devices(torch: Any) -> bool:
    """Whether the modes over functions are all of torch.set_default_device(), which say nothing of attention."""
    from torch.utils._device import DeviceContext

    count = torch._C._len_torch_function_stack()  # noqa: SLF001
    return all(isinstance(torch._C._get_function_stack_at(at), DeviceContext) for at in range(count))  # noqa: SLF001
