"""What operators of PyTorch's have in common here: how one is defined, differentiated and kept from being so twice."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NoReturn

import torch
from torch._functorch.utils import enable_single_level_autograd_function

from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.runtime.tensors import is_plain


def define(library: Any, name: str, schema: str, run: Any, fake: Any, vmap: Any) -> Any:
    """An operator on CPUs and GPUs, which is returned. run: on tensors in memory, gives contiguous ones; fake: on
    tensors without numbers; vmap: as torch.library.register_vmap wants it.
    """
    library.define(f"{name}{schema}")
    names = [one.split()[-1] for one in schema[1 : schema.index(")")].split(",")]
    for device in ("CPU", "CUDA"):
        library.impl(name, run, device)
    torch.library.register_fake(f"{library.ns}::{name}", partial(_without_numbers, names, fake), lib=library)
    torch.library.register_vmap(f"{library.ns}::{name}", vmap, lib=library)
    return getattr(getattr(torch.ops, library.ns), name)


def _without_numbers(names: Sequence[str], fake: Any, *arguments: Any) -> Any:
    """What a trace is told of a call's results. Raises ArgumentTypeError for a tensor on device 'meta' beside a first
    one that is not: PyTorch asks here for the results themselves then, and would take memory that nobody has written.
    """
    tensors = {name: one for name, one in zip(names, arguments, strict=False) if isinstance(one, torch.Tensor)}
    absent = [name for name, one in tensors.items() if one.device.type == "meta"]
    if absent and next(iter(tensors)) not in absent:
        raise ArgumentTypeError(
            f"{absent[0]} wanted as a tensor of numbers in memory, got one on device 'meta', which has no numbers. "
            "Give torch.empty_like, and numbers in it."
        )
    return fake(*arguments)


_is_batched = torch._C._functorch.is_legacy_batchedtensor  # noqa: SLF001 - there is no public question

# What is below autograd of a call on tensors in memory, with nothing else at work: it ends in define()'s run.
_own, _kinds = torch._C, torch._C.DispatchKey  # noqa: SLF001 - as PyTorch's own library asks
_BELOW = _own._after_autograd_keyset.raw_repr()  # noqa: SLF001 - likewise
_IN_MEMORY = frozenset(
    keys.raw_repr()
    for place in (_kinds.CPU, _kinds.CUDA)
    for keys in (
        _own.DispatchKeySet(place), _own.DispatchKeySet(place) | _own.DispatchKeySet(_kinds.ADInplaceOrView),
    )
)  # fmt: skip


def differentiate(library: Any, name: str, function: Any, run_in_memory: Any) -> None:
    """Have an operator that is called by itself, as by an exported program, differentiated by its Function.
    run_in_memory: its implementation, called here where nothing else would be: to dispatch again takes 4 us.
    """
    operator = getattr(getattr(torch.ops, library.ns), name).default
    # The last step of Function.apply: those before it would hand the call to torch.func, from which it comes, where
    # autograd's level is that of a grad around a vmap, or of the operator called by itself.
    record = super(torch.autograd.Function, function).apply
    recording, forward_ad = torch.is_grad_enabled, torch.autograd.forward_ad

    def run(keys: Any, *arguments: Any) -> Any:
        # Graphs call with nothing recorded: the first two questions spare them a look at every argument.
        if (recording() or forward_ad._current_level >= 0) and is_differentiated(  # noqa: SLF001
            *[one for one in arguments if isinstance(one, torch.Tensor)]
        ):
            if not torch._C._are_functorch_transforms_active():  # noqa: SLF001
                return function.apply(*arguments)  # whose forward comes here again, with nothing recorded
            with enable_single_level_autograd_function():
                return record(*arguments)
        if keys.raw_repr() & _BELOW in _IN_MEMORY:
            return run_in_memory(*arguments)
        with torch._C._AutoDispatchBelowAutograd():  # noqa: SLF001 - as torch.library's own formulas are left
            return operator.redispatch(keys & torch._C._after_autograd_keyset, *arguments)  # noqa: SLF001

    library.impl(name, run, "Autograd", with_keyset=True)


def wants_gradient(*tensors: Any) -> bool:
    """Whether a gradient may be wanted."""
    return torch.is_grad_enabled() and any(one.requires_grad for one in tensors)


def is_differentiated(*tensors: Any) -> bool:
    """Whether a gradient or a tangent may be wanted, and nobody has begun to make it: within a Function neither is."""
    return wants_gradient(*tensors) or (
        torch.autograd.forward_ad._current_level >= 0  # noqa: SLF001 - of torch.func.jvp, too
        and torch._C._is_fwd_grad_enabled()  # noqa: SLF001
    )


def is_mapped(tensor: Any) -> bool:
    """Whether a tensor, perhaps None, is one of many to autograd: of is_grads_batched=True, which is no transform.
    Not in watch: of a backward() within torch.compile Dynamo reads what is there, and warns of this.
    """
    return tensor is not None and bool(_is_batched(tensor))


def last_function(operator: Any, no_second: str, no_tangents: str) -> Any:
    """The Function of an operator whose results are gradients: their own derivative is refused, with these words."""

    class Last(torch.autograd.Function):  # type: ignore[misc] # PyTorch's classes are Any
        """Gradients by the operator."""

        generate_vmap_rule = True

        @staticmethod
        def forward(*arguments: Any) -> Any:
            """arguments: the operator's."""
            return operator(*arguments)

        @staticmethod
        def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
            """Nothing is kept."""

        @staticmethod
        def backward(_ctx: Any, *_gradients: Any) -> NoReturn:
            """Raise ArgumentError."""
            raise ArgumentError(no_second)

        @staticmethod
        def jvp(_ctx: Any, *_tangents: Any) -> NoReturn:
            """Raise ArgumentError."""
            raise ArgumentError(no_tangents)

    return Last


def keep(ctx: Any, *tensors: Any) -> None:
    """For the way back, and for jvp, which refuses: within a vmap PyTorch looks there for as many as it kept places
    of, and says nothing that helps where there are none.
    """
    ctx.save_for_backward(*tensors)
    ctx.save_for_forward(*tensors)


def only(found: Any, wanted: Any) -> tuple[Any, ...]:
    """The gradients that are wanted, and None for the others."""
    return tuple(one if kept else None for one, kept in zip(found, wanted, strict=True))


def all_bare(tensors: tuple[Any, ...]) -> tuple[Any, ...]:
    """bare() of each: nearly always they themselves."""
    for one in tensors:
        if type(one) is not torch.Tensor and one is not None:
            return tuple(map(bare, tensors))
    return tensors


def bare(tensor: Any) -> Any:
    """The tensor without a class that watches functions only: it has seen this operator already. None is None."""
    kind: Any = type(tensor)
    if kind is torch.Tensor or tensor is None or is_plain(kind):
        return tensor
    if kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__:
        return tensor
    with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - as in Tensor.__torch_function__
        return tensor.as_subclass(torch.Tensor)


def filled(gradients: Any, like: Any) -> tuple[Any, ...]:
    """Gradients as an operator returns them: contiguous, without elements where there is none."""
    return tuple([like.new_empty(0) if one is None else one.contiguous() for one in gradients])


def fake_gradients(arguments: Any, wanted: Any, like: Any) -> tuple[Any, ...]:
    """What filled() gives, for tensors without numbers. arguments: those that have the gradients."""
    return tuple(
        one.new_empty(one.shape) if kept else like.new_empty(0) for one, kept in zip(arguments, wanted, strict=True)
    )


def check_local(*tensors: Any, names: Sequence[str] = ("q", "k", "v")) -> None:
    """Raise ArgumentTypeError for a DTensor, whose numbers lie with several processes; None is none. Not for Dynamo."""
    distributed = sys.modules.get("torch.distributed.tensor")
    if distributed is None:
        return
    for name, one in zip(names, tensors, strict=True):
        if isinstance(one, distributed.DTensor):
            raise ArgumentTypeError(
                f"{name} wanted as a tensor of this process, got a DTensor. Where each process has batch entries or "
                f"heads of its own, give {name}.to_local(), or call within torch.distributed.tensor.experimental."
                "local_map."
            )


def check_known(name: str, number: Any) -> None:
    """Raise ArgumentTypeError for an option that a graph would read from an array when it runs: what is compiled, and
    refused, depends on it. Dynamo takes NumPy's numbers for arrays.
    """
    symbolic = isinstance(number, torch.SymFloat) and not number.node.has_hint()  # others become constants with guards
    if symbolic or isinstance(number, torch.Tensor):
        raise ArgumentTypeError(
            f"{name} wanted as a Python number in a graph, got one that is read from a tensor or from NumPy when the "
            f"graph runs. Make it outside: {name} = float({name})."
        )


def outside_graphs(function: Callable[..., Any], reason: str) -> Any:
    """A function that Dynamo neither traces nor takes into a graph, and says why where it must."""
    return torch.compiler.disable(function, reason=reason)
