"""Whom flurka_gpu.py measures: ours, and what a user of torch has. Each contender is call(set) -> result."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from flurka_gpu_workload import Workload, attend, einsums, flurka_by_einsum, linear, merge, slots, split
from gpu_timing import Call
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention as sdpa

import flurka_numba

OURS, OURS_LOW_RANK, OURS_KERNEL = "flurka_numba", "flurka_numba low-rank", "flurka_numba kernel"
DENSE, DENSE_UNFUSED = "dense (cuDNN)", "dense unfused"
LOW_RANK_CUDNN, LOW_RANK_FLASH, LOW_RANK_UNFUSED = "low-rank (cuDNN)", "low-rank (flash)", "low-rank unfused"
KERNEL, KERNEL_EAGER, FLA = "kernel (torch.compile)", "kernel eager", "fla chunk (causal)"
FLURKA, FLURKA_EAGER = "FLuRKA (torch.compile)", "FLuRKA eager"
FLURKA_EINSUM, LAYER_B_EINSUM = "FLuRKA, einsum (torch.compile)", "FLuRKA (b), einsum (torch.compile)"
COMPRESSION, PROJECTIONS = "(EK, FV alone)", "(4 projections alone)"
LAYER_A, LAYER_B, LAYER_OURS_A = "FLuRKA (a) (torch.compile)", "FLuRKA (b) (torch.compile)", "flurka_numba (a)"
LOW_RANK_A, LOW_RANK_B = "low-rank (a)", "low-rank (b)"
LARGEST_SCORES = 8 << 30  # bytes of what dense attention may hold, unfused


@dataclass(frozen=True, slots=True)
class Contender:
    """method: what its result is checked as; None: it is not."""

    call: Call
    method: str | None


Prepare = Callable[[Workload, str], Contender | None]
Formula = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, str], torch.Tensor]  # of q, k, v and a feature map


def fused(workload: Workload, backend: SDPBackend) -> AbstractContextManager[Any]:
    """One of SDPA's kernels; on a CPU whichever there is."""
    return nullcontext() if workload.proj_k.device.type == "cpu" else sdpa_kernel(backend)


def compiled(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """By torch.compile, for one shape."""
    return torch.compile(function, dynamic=False)


def rooms(workload: Workload) -> list[torch.Tensor]:
    """A place for each set's result, stored as its inputs are, NaN so that a call must write everything."""
    return [torch.full_like(q.transpose(1, 2), torch.nan).transpose(1, 2) for q, _, _ in workload.tokens]


def ours(method: str) -> Prepare:
    """A public function of flurka_numba."""

    def prepare(workload: Workload, backend: str) -> Contender:
        outs, features = rooms(workload), {"feature_map": workload.size.feature_map, "omega": workload.omega}

        def call(index: int) -> torch.Tensor:
            q, k, v = workload.tokens[index]
            options = {"backend": backend, "out": outs[index]}
            if method == "kernel":
                return flurka_numba.kernel_attention(q, k, v, **features, **options)
            if method == "low_rank":
                return flurka_numba.low_rank_attention(q, k, v, workload.proj_k, workload.proj_v, **options)
            return flurka_numba.attention(q, k, v, workload.proj_k, workload.proj_v, **features, **options)

        return Contender(call, None if workload.size.features and method != "low_rank" else method)

    return prepare


def by_sdpa(method: str, backend: SDPBackend) -> Prepare:
    """Dense attention, or low-rank attention as SDPA(Q, EK, FV)."""

    def prepare(workload: Workload, _: str) -> Contender:
        def call(index: int) -> torch.Tensor:
            q, k, v = workload.tokens[index]
            if method == "low_rank":
                k, v = slots(workload.proj_k, k), slots(workload.proj_v, v)
            with fused(workload, backend):
                return sdpa(q, k, v)

        return Contender(call, method)

    return prepare


def by_formula(method: str, *, inductor: bool) -> Prepare:
    """The formula in torch, as it is or by torch.compile."""

    def prepare(workload: Workload, _: str) -> Contender | None:
        size = workload.size
        if method == "dense" and 2 * size.batch * size.heads * size.seq**2 > LARGEST_SCORES:
            return None

        def formula(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return attend(method, q, k, v, workload)

        function = compiled(formula) if inductor else formula
        return Contender(lambda index: function(*workload.tokens[index]), method)

    return prepare


def prepare_einsum(workload: Workload, _: str) -> Contender:
    """FLuRKA as its formula is usually written, by torch.compile."""

    function = compiled(flurka_by_einsum)
    shared = workload.proj_k, workload.proj_v, workload.size.feature_map
    return Contender(lambda index: function(*workload.tokens[index], *shared), "flurka")


def prepare_fla(workload: Workload, _: str) -> Contender:
    """flash-linear-attention has causal attention alone: another function, at a similar cost, and not checked."""
    from fla.ops.linear_attn import chunk_linear_attn

    def call(index: int) -> torch.Tensor:
        q, k, v = (one.transpose(1, 2) for one in workload.tokens[index])
        out, _ = chunk_linear_attn(torch.nn.functional.elu(q) + 1, torch.nn.functional.elu(k) + 1, v, normalize=True)
        return out.transpose(1, 2)

    return Contender(call, None)


def prepare_compression(workload: Workload, _: str) -> Contender:
    """Stage 1 alone, by cuBLAS."""

    def call(index: int) -> torch.Tensor:
        _, k, v = workload.tokens[index]
        slots(workload.proj_k, k)
        return slots(workload.proj_v, v)

    return Contender(call, None)


CORE: dict[str, Prepare] = {
    OURS: ours("flurka"),
    OURS_LOW_RANK: ours("low_rank"),
    OURS_KERNEL: ours("kernel"),
    DENSE: by_sdpa("dense", SDPBackend.CUDNN_ATTENTION),
    DENSE_UNFUSED: by_formula("dense", inductor=False),
    LOW_RANK_CUDNN: by_sdpa("low_rank", SDPBackend.CUDNN_ATTENTION),
    LOW_RANK_FLASH: by_sdpa("low_rank", SDPBackend.FLASH_ATTENTION),
    LOW_RANK_UNFUSED: by_formula("low_rank", inductor=False),
    KERNEL: by_formula("kernel", inductor=True),
    KERNEL_EAGER: by_formula("kernel", inductor=False),
    FLA: prepare_fla,
    FLURKA: by_formula("flurka", inductor=True),
    FLURKA_EINSUM: prepare_einsum,
    FLURKA_EAGER: by_formula("flurka", inductor=False),
    COMPRESSION: prepare_compression,
}
SWEEP = (OURS, OURS_LOW_RANK, OURS_KERNEL, LOW_RANK_CUDNN)  # and dense once a length; nothing that torch compiles


def attended(method: str, order: str, workload: Workload, kernel: Formula) -> Callable[[torch.Tensor], torch.Tensor]:
    """A layer from x, in torch. order "b": x is compressed before keys and values are made. kernel: such attention."""
    (w_q, w_k, w_v, w_o), heads = workload.weights, workload.size.heads
    proj_k, proj_v = workload.proj_k, workload.proj_v

    def layer(x: torch.Tensor) -> torch.Tensor:
        x_k, x_v = (proj_k @ x, proj_v @ x) if order == "b" else (x, x)
        q, k, v = split(x @ w_q, heads), split(x_k @ w_k, heads), split(x_v @ w_v, heads)
        if order == "a" and method in ("low_rank", "flurka"):
            k, v = slots(proj_k, k), slots(proj_v, v)
        if method in ("dense", "low_rank"):
            with fused(workload, SDPBackend.CUDNN_ATTENTION):
                return merge(sdpa(q, k, v)) @ w_o
        return merge(kernel(q, k, v, workload.size.feature_map)) @ w_o

    return layer


def by_layer(method: str, order: str = "a", *, inductor: bool = False, kernel: Formula = linear) -> Prepare:
    """A layer in torch, as it is or by torch.compile."""

    def prepare(workload: Workload, _: str) -> Contender:
        layer = attended(method, order, workload, kernel)
        function = compiled(layer) if inductor else layer
        return Contender(lambda index: function(workload.x[index]), None if method == "dense" else method)

    return prepare


def prepare_our_layer(workload: Workload, backend: str) -> Contender:
    """FlurkaLayer, in the order that it chooses."""
    size = workload.size
    layer = flurka_numba.FlurkaLayer(
        *workload.weights, workload.proj_k, workload.proj_v, heads=size.heads, feature_map=size.feature_map
    )
    return Contender(lambda index: layer(workload.x[index], backend=backend), "flurka")


def prepare_our_layer_a(workload: Workload, backend: str) -> Contender:
    """attention() between torch's projections: order (a), whatever is cheaper."""
    (w_q, w_k, w_v, w_o), size = workload.weights, workload.size

    def call(index: int) -> torch.Tensor:
        x = workload.x[index]
        room = torch.empty_like(x)
        q, k, v = (split(x @ weight, size.heads) for weight in (w_q, w_k, w_v))
        options = {"feature_map": size.feature_map, "backend": backend, "out": split(room, size.heads)}
        flurka_numba.attention(q, k, v, workload.proj_k, workload.proj_v, **options)
        return room @ w_o

    return Contender(call, "flurka")


def prepare_projections(workload: Workload, _: str) -> Contender:
    """The four products with weights that order (a) cannot do without."""

    def call(index: int) -> torch.Tensor:
        *_, last = [workload.x[index] @ weight for weight in workload.weights]
        return last

    return Contender(call, None)


LAYER: dict[str, Prepare] = {
    OURS: prepare_our_layer,
    LAYER_OURS_A: prepare_our_layer_a,
    DENSE: by_layer("dense"),
    LOW_RANK_A: by_layer("low_rank"),
    LOW_RANK_B: by_layer("low_rank", "b"),
    KERNEL: by_layer("kernel", inductor=True),
    LAYER_A: by_layer("flurka", inductor=True),
    LAYER_B: by_layer("flurka", "b", inductor=True),
    LAYER_B_EINSUM: by_layer("flurka", "b", inductor=True, kernel=einsums),
    PROJECTIONS: prepare_projections,
}


def our_gradients(workload: Workload, backend: str) -> Contender:
    """attention_vjp and its vjp. Raises BackendError where the backend has no gradients."""

    def call(index: int) -> torch.Tensor:
        q, k, v = workload.tokens[index]
        options = {"feature_map": workload.size.feature_map, "backend": backend}
        _, vjp = flurka_numba.attention_vjp(q, k, v, workload.proj_k, workload.proj_v, **options)
        return vjp(v)[0]  # v stands for dout: q would be read from memory once for both

    return Contender(call, None)


def autograd_contenders(workload: Workload) -> Iterator[tuple[str, Contender]]:
    """Forward and backward by torch: low-rank by cuDNN, FLuRKA by torch.compile."""

    def low_rank(q: Any, k: Any, v: Any, proj_k: Any, proj_v: Any) -> Any:
        with fused(workload, SDPBackend.CUDNN_ATTENTION):
            return sdpa(q, slots(proj_k, k), slots(proj_v, v))

    def flurka(q: Any, k: Any, v: Any, proj_k: Any, proj_v: Any) -> Any:
        return linear(q, slots(proj_k, k), slots(proj_v, v), workload.size.feature_map)

    by_einsum = compiled(partial(flurka_by_einsum, feature_map=workload.size.feature_map))
    formulas = ((LOW_RANK_CUDNN, low_rank), (FLURKA, compiled(flurka)), (FLURKA_EINSUM, by_einsum))
    for name, formula in formulas:

        def call(index: int, formula: Callable[..., Any] = formula) -> torch.Tensor:
            with torch.enable_grad():
                given = [*workload.tokens[index], workload.proj_k, workload.proj_v]
                inputs = [one.detach().requires_grad_() for one in given]
                return torch.autograd.grad(formula(*inputs), inputs, given[2])[0]

        yield name, Contender(call, None)
