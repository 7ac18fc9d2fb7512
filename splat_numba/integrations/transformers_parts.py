"""A mask of transformers as parts, each a call of attention on a piece of the batch, of the queries and of the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from splat_numba.api import attention
from splat_numba.arguments.masks import Mask
from splat_numba.errors import ArgumentError

# What says nothing about numbers. Dynamo asks most of it.
_ASKED = {
    "dim", "size", "__len__", "__hash__", "numel", "stride", "storage_offset", "element_size", "get_device",
    "is_contiguous", "is_floating_point", "is_complex", "is_signed", "is_conj", "is_neg", "is_inference", "_is_view",
    "_is_zerotensor", "_has_symbolic_sizes_strides", "untyped_storage",
}  # fmt: skip
_SAME = {"detach", "clone", "contiguous", "requires_grad_"}


@dataclass(frozen=True, slots=True)
class Part:
    """One call: batch entries, rows of queries and keys as half-open ranges, the mask and key lengths of the piece."""

    entries: tuple[int, int]
    rows: tuple[int, int]
    keys: tuple[int, int]
    mask: Mask
    kv_lengths: tuple[int, ...] | None = None


class SplatMask(torch.Tensor):  # type: ignore[misc] # PyTorch's classes are Any
    """What a model hands from its mask to its attention: parts, in the clothes of a (batch, 1, seq_q, seq_kv) tensor.

    Models and generate() ask a mask for its shape and hand it on. Anything that would read or change its numbers, of
    which it has none, raises ArgumentError: a mask is never lost on the way.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, parts: tuple[Part, ...], shape: tuple[int, int, int], device: Any) -> SplatMask:
        """Of (batch, seq_q, seq_kv)."""
        batch, seq_q, seq_kv = shape
        one: SplatMask
        empty = torch.empty_strided((batch, 1, seq_q, seq_kv), (0, 0, 0, 0), dtype=torch.bool, device=device)
        one = torch.Tensor._make_subclass(cls, empty)  # noqa: SLF001 - as Parameter does; as_subclass() makes views
        one.parts = parts
        return one

    def __repr__(self) -> str:
        masks = "; ".join(str(part.mask) for part in self.parts)
        return f"SplatMask({tuple(self.shape)}, {masks})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Answers about shape and kind; copies are the mask itself; the rest is refused."""
        name = getattr(func, "__name__", str(func))
        if name in _SAME or (name == "to" and _stays(args[1:], kwargs or {})):
            return args[0]
        if name == "__get__" or name in _ASKED:
            with torch._C.DisableTorchFunctionSubclass():  # noqa: SLF001 - as PyTorch's own subclasses do
                found = func(*args, **(kwargs or {}))
            if not isinstance(found, torch.Tensor):  # mask.T would be one without parts
                return found
            name = getattr(getattr(func, "__self__", None), "__name__", name)
        raise ArgumentError(
            f"attention_mask wanted handed to attention as it was made, got {name!r} called on it. This model changes "
            "its masks: load it with attn_implementation='sdpa', or give it a bool mask (batch, 1, seq_q, seq_kv)."
        )


def _stays(args: Any, kwargs: Any) -> bool:
    """Whether to() would leave a mask as it is. Its parts are no tensors, so any device may use it."""
    asked = [*args, *kwargs.values()]
    return not any(isinstance(one, torch.dtype) and one != torch.bool for one in asked)


def attend_parts(parts: tuple[Part, ...], q: Any, k: Any, v: Any, scale: float | None, sinks: Any = None) -> Any:
    """Attention of q, k and v, (batch, heads, seq, dim), part by part: out, (batch, seq_q, heads, value_dim).

    sinks: (heads,), a score that every row has beside those of its keys, without a value; or None. Rows of no part give
    0. Raises what splat_numba.attention raises.
    """
    q, k, v = (one.transpose(1, 2) for one in (q, k, v))
    batch, seq_q = q.shape[:2]
    if len(parts) == 1 and (parts[0].entries, parts[0].rows) == ((0, batch), (0, seq_q)):
        return _attend(parts[0], q, k, v, scale, sinks)
    out = q.new_zeros(batch, seq_q, q.shape[2], v.shape[3])
    for part in parts:
        out[slice(*part.entries), slice(*part.rows)] = _attend(part, q, k, v, scale, sinks)
    return out


def _attend(part: Part, q: Any, k: Any, v: Any, scale: float | None, sinks: Any) -> Any:
    entries, rows, keys = slice(*part.entries), slice(*part.rows), slice(*part.keys)
    found = attention(
        q[entries, rows], k[entries, keys], v[entries, keys], part.mask,
        scale=scale, layout="bshd", kv_lengths=part.kv_lengths, return_lse=sinks is not None,
    )  # fmt: skip
    if sinks is None:
        return found
    out, lse = found
    # exp(lse) / (exp(lse) + exp(sink)): the share of a row's weight that its keys keep.
    share = torch.sigmoid(lse - sinks.to(lse.dtype)[:, None])
    return out * share.transpose(1, 2)[..., None].to(out.dtype)
