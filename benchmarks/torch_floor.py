"""What PyTorch takes for calls that do nothing: a function of its autograd, and an operator that graphs hold.

Both are of three arrays, keep five for their gradients and allocate what attention does.
"""

from __future__ import annotations

from typing import Any

import torch

LIBRARY = torch.library.Library("splat_floor", "DEF")


class Bare(torch.autograd.Function):
    """For eager calls."""

    @staticmethod
    def forward(ctx: Any, q: Any, k: Any, v: Any) -> Any:
        """An array like q."""
        out, lse = _forward(q, k, v)
        ctx.save_for_backward(q, k, v, out, lse)
        return out

    @staticmethod
    def backward(ctx: Any, _dout: Any) -> Any:
        """Arrays like the inputs."""
        return tuple(torch.empty_like(one) for one in ctx.saved_tensors[:3])


def _forward(q: Any, _k: Any, _v: Any) -> Any:
    return torch.empty_like(q), q.new_empty(q.shape[:3], dtype=torch.float32)


def _backward(_dout: Any, q: Any, k: Any, v: Any, _out: Any, _lse: Any) -> Any:
    return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v)


for _name, _schema, _run in (
    ("forward", "(Tensor q, Tensor k, Tensor v) -> (Tensor, Tensor)", _forward),
    (
        "backward",
        "(Tensor dout, Tensor q, Tensor k, Tensor v, Tensor out, Tensor lse) -> (Tensor, Tensor, Tensor)",
        _backward,
    ),
):
    LIBRARY.define(f"{_name}{_schema}")
    for _device in ("CPU", "CUDA"):
        LIBRARY.impl(_name, _run, _device)
    torch.library.register_fake(f"splat_floor::{_name}", _run, lib=LIBRARY)


class InGraphs(torch.autograd.Function):
    """The operator with its gradients."""

    @staticmethod
    def forward(q: Any, k: Any, v: Any) -> Any:
        """(out, lse)."""
        return torch.ops.splat_floor.forward(q, k, v)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        """Keep all of them."""
        ctx.save_for_backward(*inputs, *output)

    @staticmethod
    def backward(ctx: Any, dout: Any, _dlse: Any) -> Any:
        """Arrays like the inputs."""
        return torch.ops.splat_floor.backward(dout, *ctx.saved_tensors)


@torch.compiler.allow_in_graph
def in_graphs(q: Any, k: Any, v: Any) -> Any:
    """(out, lse) by the operator."""
    return InGraphs.apply(q, k, v)


def nothing(q: Any, k: Any, v: Any) -> Any:
    """Out by the operator, to be compiled."""
    return in_graphs(q, k, v)[0]
