"""What bench compares with: dense NumPy, and torch's attention in three forms. Imported by bench only."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from splat_numba.formats.acsr import ACSR
from splat_numba.formats.pattern_nodes import Causal
from splat_numba.formats.patterns import Pattern
from splat_numba.integrations.flex_masks import mask_function
from splat_numba.testing.problem import Operands

NUMPY, SDPA, MASKED, FLEX = "NumPy", "SDPA", "SDPA mask", "Flex"
LONGEST_DENSE_MASK = 16_384  # tokens: a bool mask of 256 MiB, and SDPA makes a float one from it
NUMPY_ROWS = 512  # query rows at a time, so that the scores stay in the cache


@dataclass(frozen=True, slots=True)
class Prepared:
    """A peer for one mask: ``call`` runs it, ``seconds`` is what compiling took (0 if there is nothing to compile)."""

    call: Callable[[], Any]
    seconds: float = 0.0


Prepare = Callable[[Pattern, ACSR, Operands], Prepared | None]


def find_peers(dtype: str) -> tuple[dict[str, Prepare], list[str]]:
    """The peers that run here, by name, and notes on those that do not."""
    if find_spec("torch") is None:
        note = 'torch is not installed: dense NumPy instead. Run: pip install "splat-numba[torch]"'
        return {NUMPY: _numpy_dense}, [note]
    if dtype == "bfloat16":
        return {}, ["bfloat16 arrays of NumPy do not go into torch: no peers. Leave --dtype out to have some."]
    peers: dict[str, Prepare] = {SDPA: _sdpa_dense, MASKED: _sdpa_masked}
    if dtype == "float64":
        return peers, ["torch FlexAttention does not take float64 on CPUs."]
    if not any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "g++", "clang++")):
        return peers, ["torch FlexAttention needs a C++ compiler: install g++ or clang++."]
    return {**peers, FLEX: _flex}, []


def versions(threads: int) -> str:
    """What is compared, and equal threads for all of it."""
    found = [f"NumPy {np.__version__}", f"Numba {metadata.version('numba')}"]
    if find_spec("torch") is not None:
        import torch

        torch.set_num_threads(threads)
        found.append(f"torch {torch.__version__}")
    if find_spec("threadpoolctl") is not None:
        import threadpoolctl

        threadpoolctl.threadpool_limits(threads)
    return ", ".join(found)


def _numpy_dense(_: Pattern, __: ACSR, operands: Operands) -> Prepared:
    q, k, v = operands
    scale = q.dtype.type(q.shape[-1] ** -0.5)

    def call() -> NDArray[Any]:
        out = np.empty((*q.shape[:3], v.shape[3]), q.dtype)
        for head in np.ndindex(q.shape[:2]):
            for first in range(0, q.shape[2], NUMPY_ROWS):
                rows = slice(first, first + NUMPY_ROWS)
                scores = (q[head][rows] * scale) @ k[head].T
                scores -= scores.max(axis=1, keepdims=True)
                np.exp(scores, out=scores)
                out[head][rows] = (scores @ v[head]) / scores.sum(axis=1, keepdims=True)
        return out

    return Prepared(call)


def _tensors(operands: Operands) -> tuple[Any, ...]:
    import torch

    return tuple(torch.from_numpy(x) for x in operands)


def _sdpa_dense(pattern: Pattern, _: ACSR, operands: Operands) -> Prepared:
    """Without a mask: what the pattern competes with; is_causal for causal(), as anyone would write it."""
    import torch

    q, k, v = _tensors(operands)
    causal = isinstance(pattern, Causal)
    return Prepared(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal))


def _sdpa_masked(_: Pattern, mask: ACSR, operands: Operands) -> Prepared | None:
    import torch

    if max(mask.shape) > LONGEST_DENSE_MASK:
        return None
    q, k, v = _tensors(operands)
    dense = torch.from_numpy(mask.to_dense())
    return Prepared(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=dense))


def _flex(pattern: Pattern, mask: ACSR, operands: Operands) -> Prepared | None:
    """FlexAttention with the pattern as arithmetic on indices, or as a lookup where it has no translation."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    seq_q, seq_kv = mask.shape
    if max(seq_q, seq_kv) > LONGEST_DENSE_MASK:  # create_block_mask evaluates every pair
        return None
    q, k, v = _tensors(operands)
    keeps = mask_function(pattern, seq_q, seq_kv)
    torch._dynamo.config.recompile_limit = 1000  # noqa: SLF001 - beyond 8 patterns it would run unfused instead
    begin = time.perf_counter()
    block_mask = create_block_mask(keeps, None, None, seq_q, seq_kv, device="cpu")
    compiled = torch.compile(flex_attention, dynamic=False)
    with torch.no_grad():
        compiled(q, k, v, block_mask=block_mask)

    def call() -> Any:
        with torch.no_grad():
            return compiled(q, k, v, block_mask=block_mask)

    return Prepared(call, time.perf_counter() - begin)
