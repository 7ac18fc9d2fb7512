"""What FLuRKA, low-rank, kernel and dense attention are beside on a CPU: compositions of NumPy's and torch's operators.

A contender is a function of an `Arrays` that gives a call without arguments, or None where its package is missing.
Forward means out; training means out and the gradients of q, k, v and both projections (torch: autograd).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

import flurka_numba as flurka

Array = NDArray[np.float32]
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Arrays:
    """q, k, v, dout: (1, heads, n, head_dim); proj_k, proj_v: (rank, n)."""

    q: Array
    k: Array
    v: Array
    dout: Array
    proj_k: Array
    proj_v: Array

    @classmethod
    def draw(cls, heads: int, seq: int, head_dim: int, rank: int) -> Arrays:
        """Random ones, always the same."""
        rng = np.random.default_rng(0)
        tokens = [rng.standard_normal((1, heads, seq, head_dim), dtype=np.float32) for _ in range(4)]
        projections = [rng.standard_normal((rank, seq), dtype=np.float32) / np.float32(seq**0.5) for _ in range(2)]
        return cls(*tokens, *projections)


def torch_or_none() -> ModuleType | None:
    """torch with as many threads as we use, where it is installed."""
    try:
        import torch
    except ModuleNotFoundError:
        return None
    from splat_numba.runtime.device import cores

    torch.set_num_threads(cores())
    return torch  # type: ignore[no-any-return]


# Ours


def ours(method: str, arrays: Arrays, *, train: bool) -> Call:
    """The package's function of a method."""
    projections = () if method == "kernel" else (arrays.proj_k, arrays.proj_v)
    name = {"flurka": "attention", "low_rank": "low_rank_attention", "kernel": "kernel_attention"}[method]
    operands = (arrays.q, arrays.k, arrays.v, *projections)
    if not train:
        function = getattr(flurka, name)
        return lambda: function(*operands)
    function = getattr(flurka, f"{name}_vjp")

    def run() -> Any:
        out, vjp = function(*operands)
        return out, vjp(arrays.dout)

    return run


# NumPy and its BLAS


def numpy_elu(x: Array) -> Array:
    """elu(x) + 1, as one writes it."""
    return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))


def numpy_kernel(q: Array, k: Array, v: Array) -> Array:
    """Linear attention."""
    phi_q, phi_k = numpy_elu(q), numpy_elu(k)
    state, z = phi_k.swapaxes(-1, -2) @ v, phi_k.sum(axis=-2)
    result: Array = (phi_q @ state) / ((phi_q @ z[..., None]) + np.float32(1e-6))
    return result


def numpy_softmax(q: Array, k: Array, v: Array) -> Array:
    """Dense attention."""
    scores = q @ k.swapaxes(-1, -2)
    scores *= np.float32(q.shape[-1] ** -0.5)
    scores -= scores.max(axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= scores.sum(axis=-1, keepdims=True)
    result: Array = scores @ v
    return result


def by_numpy(method: str, arrays: Arrays) -> Call:
    """The composition of a method by NumPy."""
    a = arrays
    calls: dict[str, Call] = {
        "flurka": lambda: numpy_kernel(a.q, a.proj_k @ a.k, a.proj_v @ a.v),
        "low_rank": lambda: numpy_softmax(a.q, a.proj_k @ a.k, a.proj_v @ a.v),
        "kernel": lambda: numpy_kernel(a.q, a.k, a.v),
        "dense": lambda: numpy_softmax(a.q, a.k, a.v),
    }
    return calls[method]


# torch, eager; softmax methods by its fused SDPA


def torch_out(torch: ModuleType, method: str, q: Any, k: Any, v: Any, proj_k: Any, proj_v: Any) -> Any:
    """The composition of a method by torch."""
    if method in ("flurka", "low_rank"):
        k, v = proj_k @ k, proj_v @ v
    if method in ("dense", "low_rank"):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)
    phi_q, phi_k = torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1
    state, z = phi_k.mT @ v, phi_k.sum(-2)
    return (phi_q @ state) / ((phi_q @ z[..., None]) + 1e-6)


def by_torch(method: str, arrays: Arrays, *, train: bool) -> Call | None:
    """The composition of a method by torch; with train, its autograd as well."""
    torch = torch_or_none()
    if torch is None:
        return None
    names = ("q", "k", "v", "proj_k", "proj_v")
    theirs = [torch.from_numpy(getattr(arrays, name)) for name in names]
    if not train:
        return lambda: torch_out(torch, method, *theirs)
    dout = torch.from_numpy(arrays.dout)
    leaves = [x.clone().requires_grad_() for x in theirs]
    used = leaves if method in ("flurka", "low_rank") else leaves[:3]

    def run() -> Any:
        return torch.autograd.grad(torch_out(torch, method, *leaves), used, dout)

    return run
