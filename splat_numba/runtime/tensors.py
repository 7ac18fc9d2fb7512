"""PyTorch's tensors: what one may keep beside its numbers, and who watches it. A call here would lose both in silence.

Nothing that records operations (autograd, torch.func, torch.jit.trace, make_fx, fake tensors) sees into this package,
so a tensor that is recorded is refused by name, with what works. PyTorch is never imported here: whoever has a tensor
has done so. All that is asked of its private parts stands in this file.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NoReturn

from splat_numba.errors import ArgumentError, ArgumentTypeError


def is_recorded() -> bool:
    """Whether a trace, a level of forward-mode differentiation or a dispatch mode is active: 0.2 us, at every call."""
    tracing_state, forward_ad, dispatch_modes = _recorders(sys.modules["torch"])
    return tracing_state() is not None or forward_ad._current_level >= 0 or dispatch_modes() > 0  # noqa: SLF001


@lru_cache(maxsize=1)
def _recorders(torch: Any) -> tuple[Any, Any, Any]:
    """What is_recorded() asks: looking all of it up takes longer than asking. unpack_dual() would take microseconds."""
    own, forward_ad = torch._C, torch.autograd.forward_ad  # noqa: SLF001
    return own._get_tracing_state, forward_ad, own._len_torch_dispatch_stack  # noqa: SLF001


def check_tensor(name: str, tensor: Any, hint: str = "") -> None:
    """Raise ArgumentError, ArgumentTypeError for a tensor that is more than numbers in memory, wherever they are.

    hint: what gives gradients in the package that was called, for who wants them. is_neg() is not looked at.
    """
    torch: Any = sys.modules["torch"]
    kind: Any = type(tensor)
    if kind is not torch.Tensor and not is_plain(kind):
        raise ArgumentTypeError(
            f"{name} wanted as a plain torch.Tensor, got {kind.__module__}.{kind.__qualname__}, whose operations are "
            f"its own. Give the tensor that it holds, for example {name}.as_subclass(torch.Tensor), or "
            f"{name}.to_local() of a DTensor."
        )
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):  # noqa: SLF001 - torch.func has no public question
        raise ArgumentError(
            f"{name} wanted outside torch.func's transforms, got a tensor of grad, vmap, jvp or functionalize, none of "
            "which sees into this call. Call it outside them; instead of vmap give a batch axis."
        )
    _check_unrecorded(name, tensor, torch, hint)
    _check_stored(name, tensor, torch)


def mark_written(array: Any) -> None:
    """Tell PyTorch that a call writes to a tensor, so that autograd raises where it wants the numbers that were there.
    Other arrays, and None, are left alone.
    """
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        torch.autograd.graph.increment_version(array)


@lru_cache(maxsize=1024)
def is_plain(kind: Any) -> bool:
    """Whether a class of tensors leaves PyTorch's functions as they are, as Parameter does."""
    torch = sys.modules["torch"]
    function = getattr(kind.__torch_function__, "__func__", kind.__torch_function__)
    usual = torch.Tensor.__torch_function__.__func__, torch._C._disabled_torch_function_impl  # noqa: SLF001
    return function in usual and kind.__torch_dispatch__ is torch.Tensor.__torch_dispatch__


def _check_stored(name: str, tensor: Any, torch: Any) -> None:
    """Raise ArgumentTypeError for a tensor whose numbers are not at a pointer and strides."""
    found = None
    if tensor.is_nested:
        found = "a nested one", f"torch.nested.to_padded_tensor({name}, 0.0)"
    elif tensor.is_quantized:
        found = "a quantized one", f"{name}.dequantize()"
    elif tensor.layout is not torch.strided:
        found = str(tensor.layout), f"{name}.to_dense()"
    elif tensor.is_meta:
        found = "one on device 'meta', which has no numbers", "torch.empty_like, and numbers in it"
    elif not tensor.data_ptr() and tensor.numel():
        found = "one without memory, freed or never stored", f"{name}.clone(), before it is freed"
    if found is not None:
        raise ArgumentTypeError(f"{name} wanted as a tensor of numbers in memory, got {found[0]}. Give {found[1]}.")


def _check_unrecorded(name: str, tensor: Any, torch: Any, hint: str) -> None:
    if torch._C._get_tracing_state() is not None or _is_proxied(torch):  # noqa: SLF001
        raise ArgumentError(
            f"{name} wanted outside traces, got it while torch.jit.trace, make_fx or a mode of fake tensors is at "
            "work, which would keep this call's numbers as a constant. Call it outside them."
        )
    forward_ad = torch.autograd.forward_ad
    if forward_ad._current_level >= 0 and forward_ad.unpack_dual(tensor).tangent is not None:  # noqa: SLF001
        raise ArgumentError(
            f"{name} wanted without a tangent, since forward-mode differentiation does not see into this call. Give "
            f"torch.autograd.forward_ad.unpack_dual({name}).primal."
        )
    if tensor.requires_grad and torch.is_grad_enabled():
        raise ArgumentError(
            f"{name} wanted without requires_grad while gradients are recorded, since autograd does not see into this "
            f"call. Give {name}.detach(), or call within torch.no_grad(), as in the forward of a "
            f"torch.autograd.Function.{hint}"
        )


def _is_proxied(torch: Any) -> bool:
    """Whether operations are recorded or imitated instead of done; other dispatch modes, as counters, only look on."""
    if not torch._C._len_torch_dispatch_stack():  # noqa: SLF001
        return False
    keys = torch._C._TorchDispatchModeKey  # noqa: SLF001
    return any(torch._C._get_dispatch_mode(key) is not None for key in (keys.PROXY, keys.FAKE))  # noqa: SLF001


def refuse_negated(name: str) -> NoReturn:
    """Raise ArgumentError for a tensor whose numbers in memory are still to be negated."""
    raise ArgumentError(
        f"{name} wanted with its numbers as they are in memory, got a view of their negatives ({name}.is_neg()). Give "
        f"{name}.resolve_neg(), which copies."
    )


@lru_cache(maxsize=64)
def dtype_name(dtype: Any) -> str:
    """The name of a tensor's dtype, which PyTorch builds anew each time."""
    return str(dtype).removeprefix("torch.")


def likeness(tensors: Sequence[Any]) -> Callable[[Sequence[Any]], list[int] | None] | None:
    """A function of other tensors: their addresses if they are as these in all else that a call depends on, None if
    they are not, or something records. None where nobody can tell so fast.

    Dynamo's own guards ask for class, dispatch keys, dtype, device, sizes, strides and requires_grad: 0.3 us for three
    tensors, where asking for all of it from Python takes 2. They are private: without them nobody can.
    """
    torch: Any = sys.modules["torch"]
    guards = getattr(_guards(torch), "TensorGuards", None)
    if guards is None or is_recorded() or len(set(map(id, tensors))) < len(tensors):  # guards want each tensor once
        return None
    alike = guards(*tensors, dynamic_dims_sizes=None, dynamic_dims_strides=None).check
    tracing_state, forward_ad, _ = _recorders(torch)  # dispatch modes are among the keys
    frozen, recording = not any(one.requires_grad for one in tensors), torch.is_grad_enabled
    count = len(tensors)

    def addresses(others: Sequence[Any]) -> list[int] | None:
        if tracing_state() is not None or forward_ad._current_level >= 0:  # noqa: SLF001
            return None
        if len(others) != count or not alike(*others):
            return None
        places = [one.data_ptr() for one in others]
        # 0: empty, or without memory, which the checks tell apart.
        return places if (frozen or not recording()) and 0 not in places else None

    return addresses


def maker(shape: Sequence[int], steps: Sequence[int], dtype: Any, device: Any) -> Callable[[Any], Any]:
    """What makes a fresh tensor of these sizes, strides, dtype and device, whatever it is given. As Inductor's graphs
    do it where that is there, 0.3 us: torch.empty_strided() takes 0.8, most of it for reading its arguments.
    """
    torch: Any = sys.modules["torch"]
    quick = getattr(_guards(torch), f"_empty_strided_{device.type}", None)
    empty = torch.empty_strided

    def usual(_like: Any) -> Any:
        return empty(shape, steps, dtype=dtype, device=device)

    if quick is None:
        return usual
    if device.type != "cuda":
        return lambda _like: quick(shape, steps, dtype)
    chosen, index = torch._C._cuda_getDevice, device.index  # noqa: SLF001 - the quick way takes the device that is chosen
    return lambda like: quick(shape, steps, dtype) if chosen() == index else usual(like)


@lru_cache(maxsize=1)
def _guards(torch: Any) -> Any:
    """PyTorch's module of guards, None where there is none."""
    return getattr(getattr(torch._C, "_dynamo", None), "guards", None)  # noqa: SLF001
