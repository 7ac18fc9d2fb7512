"""float32 by TF32 (sm80) beside our FMA units (simt), PyTorch's memory-efficient SDPA and FlexAttention.

    python benchmarks/gpu_float32.py [--seq 4096] [--dims 128 64] [--without FlexAttention] [--json float32.json]

Several processes compile our kernels first. One measures: medians of CUDA events with the L2 cache overwritten before
each call; TFLOP/s count the products of kept pairs, 4 dims a pair forward and 10 dims of the gradients. Errors are the
largest of 256 rows of a head against float64. PyTorch's matmul has TF32 off, which FlexAttention's kernels read; its
SDPA takes no mask but causal. The last line is JSON.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable
from functools import partial
from itertools import product
from typing import Any

import torch
from gpu_rows import options, rated, say
from gpu_timing import Budget
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.attention.flex_attention import create_block_mask, flex_attention

import splat_numba as splat

BATCH, HEADS, DIMS, ROWS = 2, 16, (128, 64), 256
MASKS = {"full": splat.full(), "causal": splat.causal(), "window512": splat.window(512)}
MODS: dict[str, Any] = {"causal": lambda _b, _h, i, j: i >= j, "window512": lambda _b, _h, i, j: (i - j).abs() <= 512}
DENSE = {"full": False, "causal": True}  # those that PyTorch's kernel takes, by is_causal
OURS = {"three products": ("sm80", "ieee"), "one product": ("sm80", "tf32"), "FMA": ("simt", "ieee")}
PEERS = ("SDPA", "FlexAttention")
BUDGET = Budget(5, 20, 1)
Arrays = tuple[torch.Tensor, ...]


def compile_all(dims: Iterable[int], seq: int, processes: int) -> None:
    """Compile our kernels: who measures finds them on disk."""
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(_compile, product(dims, MASKS, OURS, (True, False), (seq,)), chunksize=1)


def _compile(dim: int, name: str, who: str, backward: bool, seq: int) -> None:
    target, precision = OURS[who]
    splat.compile(
        MASKS[name], seq_q=seq, seq_kv=seq, head_dim=dim, heads_q=HEADS, batch=BATCH, dtype="float32", backend="cuda",
        target=target, precision=precision, backward=backward,
    )  # fmt: skip


def measure(dim: int, name: str, seq: int, compiled: Callable[..., torch.Tensor], peers: set[str]) -> dict[str, Any]:
    """Times, rates and errors of ours and of these peers."""
    draw = torch.Generator("cuda").manual_seed(1)
    q, k, v, dout = (torch.randn(BATCH, HEADS, seq, dim, device="cuda", generator=draw) for _ in range(4))
    mask = splat.ACSR.from_pattern(MASKS[name], seq, seq)
    kept = torch.from_numpy(mask.rows(slice(0, ROWS)).to_dense()).cuda()
    scores = (q[0, 0, :ROWS].double() @ k[0, 0].double().T) / dim**0.5
    exact = torch.softmax(scores.masked_fill(~kept, -torch.inf), -1) @ v[0, 0].double()
    row: dict[str, Any] = {"head_dim": dim, "mask": name}
    calls = _calls(q, k, v, dout, name, compiled)
    for who, (forward, gradients) in calls.items():
        if who not in peers and who not in OURS:
            continue
        for what, call, factor in ((who, forward, 4), (f"{who}, gradients", gradients, 10)):
            row |= rated(what, call, factor * mask.nnz * BATCH * HEADS * dim, BUDGET)
        if f"{who}_tflops" in row:
            row[f"{who}_error"] = float((forward()[0, 0, :ROWS].double() - exact).abs().max())
    return row


def _calls(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, dout: torch.Tensor, name: str, compiled: Callable[..., Any]
) -> dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]]:
    """Forward and gradients of each."""
    found: dict[str, tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor]]] = {}
    for who, (target, precision) in OURS.items():
        chosen: dict[str, Any] = {"target": target, "precision": precision}
        out, lse = splat.attention(q, k, v, MASKS[name], return_lse=True, **chosen)
        targets = tuple(torch.empty_like(one) for one in (q, k, v))
        found[who] = (
            partial(splat.attention, q, k, v, MASKS[name], out=out, **chosen),
            partial(_gradients, (dout, q, k, v, out, lse), MASKS[name], targets, chosen),
        )
    if name in DENSE:

        def sdpa(*given: torch.Tensor) -> torch.Tensor:
            with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):
                return torch.nn.functional.scaled_dot_product_attention(*given, is_causal=DENSE[name])

        found["SDPA"] = (lambda: sdpa(q, k, v), _by_autograd(sdpa, (q, k, v), dout))
    block = create_block_mask(MODS[name], None, None, q.shape[2], q.shape[2]) if name in MODS else None

    def flex(*given: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = compiled(*given, block_mask=block)
        return result

    found["FlexAttention"] = (lambda: flex(q, k, v), _by_autograd(flex, (q, k, v), dout))
    return found


def _gradients(given: Arrays, mask: splat.Pattern, targets: Arrays, chosen: dict[str, Any]) -> torch.Tensor:
    """Ours, dq as what is shown of them."""
    splat.attention_backward(*given, mask, out_grads=targets, **chosen)
    return targets[0]


def _by_autograd(call: Callable[..., torch.Tensor], given: Arrays, dout: torch.Tensor) -> Callable[[], torch.Tensor]:
    """The gradients alone, of a forward pass that is recorded at the first call."""
    leaves = [one.clone().requires_grad_() for one in given]
    recorded: list[torch.Tensor] = []

    def gradients() -> torch.Tensor:
        if not recorded:
            recorded.append(call(*leaves))
        return torch.autograd.grad(recorded[0], leaves, dout, retain_graph=True)[0]

    return gradients


def main() -> None:
    """Measure, print, write."""
    parser = options(__doc__, seq=4096)
    parser.add_argument("--dims", type=int, nargs="+", default=DIMS)
    parser.add_argument("--without", nargs="+", default=(), choices=PEERS)
    parser.add_argument("--processes", type=int, default=12)
    args = parser.parse_args()
    torch.backends.cuda.matmul.allow_tf32 = False
    compile_all(args.dims, args.seq, args.processes)
    compiled, peers = torch.compile(flex_attention, dynamic=False), {*PEERS} - {*args.without}
    say((measure(dim, name, args.seq, compiled, peers) for dim, name in product(args.dims, MASKS)), args)


if __name__ == "__main__":
    main()
