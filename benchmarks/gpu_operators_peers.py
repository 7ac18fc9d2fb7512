"""Whom gpu_operators.py compares with, operator by operator. Who is not installed or refuses says why."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gpu_operators_masks import DIM, SCALE, Setting

import splat_numba as splat

OURS, FUSED, DENSE, TORCH, CUSPARSE, CUPY = "splat", "splat fused", "dense", "torch.sparse", "cuSPARSE", "CuPy"
LIBRARIES = (TORCH, CUSPARSE, CUPY)
SIZES = (64, 128)  # of Triton's blocks


@dataclass(frozen=True, slots=True)
class Contender:
    """call(0) makes the whole result; picked(result, heads) takes of it (heads, nnz) or (heads, n, dim), untimed."""

    call: Callable[[int], torch.Tensor]
    picked: Callable[[torch.Tensor, list[int]], torch.Tensor]


Prepared = tuple[str, Callable[[], Contender]]


def triton_name(size: int) -> str:
    """Of a contender."""
    return f"Triton {size}"


def _flat(result: torch.Tensor, heads: list[int]) -> torch.Tensor:
    """Of (heads, ...) as it is."""
    return result[heads]


def _ours(result: torch.Tensor, heads: list[int]) -> torch.Tensor:
    """Of (batch, heads, ...)."""
    return result.flatten(0, 1)[heads]


def _pairs(one: Setting) -> Callable[[torch.Tensor, list[int]], torch.Tensor]:
    """Of dense scores."""
    return lambda result, heads: torch.stack([result[head][one.rows, one.columns] for head in heads])


def sddmm(one: Setting) -> Iterator[Prepared]:
    """The contenders of sampled products, prepared when called."""
    given = one.ours
    yield OURS, lambda: Contender(lambda _: splat.sddmm(given["q"], given["k"], one.acsr, scale=SCALE), _ours)
    yield TORCH, lambda: _torch_sddmm(one)

    def raw() -> Contender:
        import gpu_cusparse

        return Contender(gpu_cusparse.sddmm(one.q, one.k, one.indptr, one.columns.int(), SCALE), _flat)

    yield CUSPARSE, raw
    yield DENSE, lambda: Contender(_masked_scores(one), _pairs(one))
    for size, blocks in _triton(one):
        yield (
            triton_name(size),
            lambda blocks=blocks: Contender(lambda _: blocks().sdd(one.q, one.k, SCALE), blocks().packed),
        )


def _masked_scores(one: Setting) -> Callable[[int], torch.Tensor]:
    """A dense product, and -inf where the mask keeps nothing."""
    dropped = ~one.mask()
    return lambda _: torch.baddbmm(one.q.new_zeros(1), one.q, one.k.mT, beta=0, alpha=SCALE).masked_fill_(
        dropped, -torch.inf
    )


def _csr(one: Setting, values: torch.Tensor) -> torch.Tensor:
    """A batch of CSR matrices, one a head."""
    heads = len(values)
    return torch.sparse_csr_tensor(
        one.indptr.expand(heads, -1).contiguous(), one.columns.int().expand(heads, -1).contiguous(), values,
        (heads, *one.acsr.shape),
    )  # fmt: skip


def _torch_sddmm(one: Setting) -> Contender:
    pattern = _csr(one, torch.zeros_like(one.values))
    return Contender(
        lambda _: torch.sparse.sampled_addmm(pattern, one.q, one.k.mT, alpha=SCALE, beta=0.0).values(), _flat
    )


def softmax(one: Setting) -> Iterator[Prepared]:
    """No library has a softmax of CSR rows on a GPU: dense and blocks take scores that stand in their own form."""
    yield OURS, lambda: Contender(lambda _: splat.softmax(one.ours["values"], one.acsr), _ours)

    def dense() -> Contender:
        scores = one.dense(-torch.inf)
        return Contender(lambda _: torch.softmax(scores, dim=-1), _pairs(one))

    yield DENSE, dense
    for size, blocks in _triton(one):

        def tiled(blocks: Callable[[], Any] = blocks) -> Contender:
            scores = blocks().spread(one.values, 0.0)
            return Contender(lambda _: blocks().softmax(scores), blocks().packed)

        yield triton_name(size), tiled


def spmm(one: Setting) -> Iterator[Prepared]:
    """The contenders of sparse times dense."""
    yield OURS, lambda: Contender(lambda _: splat.spmm(one.ours["values"], one.ours["v"], one.acsr), _ours)

    def raw() -> Contender:
        import gpu_cusparse

        return Contender(gpu_cusparse.spmm(one.values, one.v, one.indptr, one.columns.int()), _flat)

    def dense() -> Contender:
        weights = one.dense(0.0)
        return Contender(lambda _: weights @ one.v, _flat)

    yield TORCH, lambda: _torch_spmm(one)
    yield CUSPARSE, raw
    yield CUPY, lambda: _cupy(one)
    yield DENSE, dense
    for size, blocks in _triton(one):

        def tiled(blocks: Callable[[], Any] = blocks) -> Contender:
            weights = blocks().spread(one.values, 0.0)
            return Contender(lambda _: blocks().dsd(weights, one.v), _flat)

        yield triton_name(size), tiled


def _torch_spmm(one: Setting) -> Contender:
    """All heads at once where PyTorch can, else one by one."""
    out, matrices = torch.zeros_like(one.v), _csr(one, one.values)
    try:
        torch.bmm(matrices, one.v, out=out)
    except RuntimeError:
        where = one.indptr, one.columns.int()
        every = [torch.sparse_csr_tensor(*where, x, one.acsr.shape) for x in one.values]

        def in_turn(_: int) -> torch.Tensor:
            for head, matrix in enumerate(every):
                torch.mm(matrix, one.v[head], out=out[head])
            return out

        return Contender(in_turn, _flat)
    return Contender(lambda _: torch.bmm(matrices, one.v, out=out), _flat)


def _cupy(one: Setting) -> Contender:
    """cuSPARSE's SpMM as CuPy calls it, a matrix a head, its operands in the order that it wants, beforehand."""
    import cupy
    from cupyx import cusparse
    from cupyx.scipy import sparse

    columns, indptr = (cupy.from_dlpack(x) for x in (one.columns.int(), one.indptr))
    v = cupy.from_dlpack(one.v.mT.contiguous())
    out = torch.zeros(one.heads, DIM, one.acsr.shape[0], device="cuda", dtype=one.v.dtype)
    to = cupy.from_dlpack(out)
    matrices = [sparse.csr_matrix((cupy.from_dlpack(x), columns, indptr), one.acsr.shape) for x in one.values]

    def call(_: int) -> torch.Tensor:
        with cupy.cuda.ExternalStream(torch.cuda.current_stream().cuda_stream):
            for head, matrix in enumerate(matrices):
                cusparse.spmm(matrix, v[head].T, c=to[head].T, alpha=1.0, beta=0.0)
        return out

    return Contender(call, lambda result, heads: result[heads].mT)


def attention(one: Setting) -> Iterator[Prepared]:
    """All three operators, in three steps each; ours fused too."""
    q, k, v = (one.ours[name] for name in "qkv")

    def steps(_: int) -> torch.Tensor:
        return splat.spmm(splat.softmax(splat.sddmm(q, k, one.acsr, scale=SCALE), one.acsr), v, one.acsr)

    def dense() -> Contender:
        scores = _masked_scores(one)
        return Contender(lambda _: torch.softmax(scores(0), dim=-1) @ one.v, _flat)

    yield OURS, lambda: Contender(steps, _ours)
    yield FUSED, lambda: Contender(lambda _: splat.attention(q, k, v, one.acsr, scale=SCALE), _ours)
    yield DENSE, dense
    for size, blocks in _triton(one):

        def tiled(blocks: Callable[[], Any] = blocks) -> Contender:
            made = blocks()
            return Contender(lambda _: made.dsd(made.softmax(made.sdd(one.q, one.k, SCALE)), one.v), _flat)

        yield triton_name(size), tiled


def _triton(one: Setting) -> Iterator[tuple[int, Callable[[], Any]]]:
    """(size, the mask's blocks, made once)."""
    for size in SIZES:
        found: list[Any] = []

        def blocks(size: int = size, found: list[Any] = found) -> Any:
            from gpu_block_sparse import Blocks

            if not found:
                found.append(Blocks.of(one.rows, one.columns, one.acsr.shape[0], size))
            return found[0]

        yield size, blocks


OPERATORS = {"sddmm": sddmm, "softmax": softmax, "spmm": spmm, "attention": attention}


def wanted(operator: str, one: Setting) -> torch.Tensor:
    """The right result of the heads that are checked, in float64."""
    found = []
    for head in one.checked:
        q, k, v, values = (x[head].double() for x in (one.q, one.k, one.v, one.values))
        if operator in ("sddmm", "attention"):
            scores = SCALE * (q @ k.mT)
            if operator == "sddmm":
                found.append(scores[one.rows, one.columns])
                continue
            found.append(torch.softmax(scores.masked_fill(~one.mask(), -torch.inf), dim=-1) @ v)
            continue
        dense = q.new_full(one.acsr.shape, -torch.inf if operator == "softmax" else 0.0)
        dense[one.rows, one.columns] = values
        found.append(torch.softmax(dense, dim=-1)[one.rows, one.columns] if operator == "softmax" else dense @ v)
    return torch.stack(found)
