"""Whom gpu_attention.py compares with. A peer that is not installed, or refuses a mask, says why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from gpu_cases import Case
from gpu_timing import Call, seconds
from gpu_workload import Workload
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

FLEX, FA4, CUDNN_FLEX = "Flex", "FA4", "cuDNN flex"
SDPA_CUDNN, SDPA_FLASH, DENSE = "SDPA cuDNN", "SDPA flash", "dense"
PEERS = (FLEX, SDPA_CUDNN, SDPA_FLASH, FA4, CUDNN_FLEX)


@dataclass(frozen=True, slots=True)
class Contender:
    """call(set) -> result, (batch, heads, seq, dim) or, where bshd, (batch, seq, heads, dim); facts: build times."""

    call: Call
    bshd: bool = False
    facts: dict[str, Any] = field(default_factory=dict)

    def result(self) -> torch.Tensor:
        """The first set's result, (batch, heads, seq, dim)."""
        out = self.call(0)
        return out.transpose(1, 2) if self.bshd else out


Prepare = Callable[[Case, Workload], Contender | None]


def find_peers(wanted: list[str] | None) -> tuple[dict[str, Prepare], list[str]]:
    """The peers that can run here, and why others cannot."""
    peers: dict[str, Prepare] = {FLEX: prepare_flex, SDPA_CUDNN: prepare_cudnn, SDPA_FLASH: prepare_flash}
    notes = []
    for name, prepare in ((FA4, prepare_fa4), (CUDNN_FLEX, prepare_cudnn_flex)):
        try:
            _import(name)
        except Exception as error:  # noqa: BLE001 - a package with a broken binary raises anything
            notes.append(f"{name} is not measured: {type(error).__name__}: {error}")
        else:
            peers[name] = prepare
    return {name: prepare for name, prepare in peers.items() if wanted is None or name in wanted}, notes


def _import(name: str) -> Any:
    if name == FA4:
        from flash_attn.cute import flash_attn_func

        return flash_attn_func
    import cudnn

    return cudnn.create_mask_plan, cudnn.flex_attn_func


def prepare_flex(case: Case, workload: Workload) -> Contender:
    """FlexAttention compiled, its block mask made beforehand by the compiled create_block_mask."""
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    torch._dynamo.reset()  # noqa: SLF001 - no case meets another's recompilations, and their limit
    seq, keeps, facts = workload.shape.seq, case.mask_mod("cuda"), {}
    build = torch.compile(create_block_mask, dynamic=False)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    block_mask, facts["mask_first_s"] = seconds(lambda: build(keeps, None, None, seq, seq, device="cuda"))
    facts["mask_peak_bytes"] = torch.cuda.max_memory_allocated() - before
    block_mask, facts["mask_s"] = seconds(lambda: build(keeps, None, None, seq, seq, device="cuda"))
    facts["mask_bytes"] = sum(x.nbytes for x in vars(block_mask).values() if isinstance(x, torch.Tensor))
    attend = torch.compile(flex_attention, dynamic=False)

    def call(index: int) -> torch.Tensor:
        return attend(*workload.sets[index], block_mask=block_mask)

    _, facts["compile_s"] = seconds(lambda: call(0))
    return Contender(call, facts=facts)


def _prepare_sdpa(backend: SDPBackend, case: Case, workload: Workload) -> Contender | None:
    if not case.dense:
        return None
    causal = bool(case.fa4)

    def call(index: int) -> torch.Tensor:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(*workload.sets[index], is_causal=causal)

    return _called(call)


def prepare_cudnn(case: Case, workload: Workload) -> Contender | None:
    """torch's SDPA on cuDNN, for full and causal."""
    return _prepare_sdpa(SDPBackend.CUDNN_ATTENTION, case, workload)


def prepare_flash(case: Case, workload: Workload) -> Contender | None:
    """torch's SDPA on FlashAttention-2, for full and causal."""
    return _prepare_sdpa(SDPBackend.FLASH_ATTENTION, case, workload)


def prepare_dense(_: Case, workload: Workload) -> Contender:
    """SDPA on cuDNN without the mask: what a sparse mask competes with."""

    def call(index: int) -> torch.Tensor:
        with sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            return scaled_dot_product_attention(*workload.sets[index])

    return _called(call)


def _called(call: Call) -> Contender:
    """A contender that has run once: a backend that is not there raises now."""
    _, first_s = seconds(lambda: call(0))
    return Contender(call, facts={"first_call_s": first_s})


def prepare_fa4(case: Case, workload: Workload, **options: Any) -> Contender | None:
    """FlashAttention-4, for full, causal and windows. options: more of its arguments."""
    if case.fa4 is None:
        return None
    attend, sets, arguments = _import(FA4), workload.bshd(), {**dict(case.fa4), **options}

    def call(index: int) -> torch.Tensor:
        found = attend(*sets[index], **arguments)
        return found[0] if isinstance(found, tuple) else found

    _, compile_s = seconds(lambda: call(0))
    return Contender(call, bshd=True, facts={"compile_s": compile_s})


def prepare_cudnn_flex(case: Case, workload: Workload) -> Contender:
    """cuDNN Frontend's interval-mask attention."""
    (create_mask_plan, attend), sets, shape = _import(CUDNN_FLEX), workload.bshd(), workload.shape
    ends = interval_ends(case.rows(0, shape.seq, shape.seq, "cuda")).repeat(1, shape.batch)[None].contiguous()
    _, first_s = seconds(lambda: create_mask_plan(ends, *sets[0]))
    plan, mask_s = seconds(lambda: create_mask_plan(ends, *sets[0]))

    def call(index: int) -> torch.Tensor:
        return attend(*sets[index], mask_plan=plan)

    _, compile_s = seconds(lambda: call(0))
    facts = {"mask_first_s": first_s, "mask_s": mask_s, "mask_bytes": ends.nbytes, "compile_s": compile_s}
    return Contender(call, bshd=True, facts=facts)


def interval_ends(mask: torch.Tensor) -> torch.Tensor:
    """(seq_q, seq_kv) bool -> (odd, seq_q) int32: query i keeps [0, F0), [F1, F2), ... of column i."""
    rows, seq = mask.shape
    edge = torch.zeros(rows, 1, dtype=torch.int8, device=mask.device)
    step = torch.diff(mask.to(torch.int8), dim=1, prepend=edge, append=edge)
    starts, stops = (step == 1).nonzero(), (step == -1).nonzero()
    per_row = torch.bincount(starts[:, 0], minlength=rows)
    rank = torch.arange(len(starts), device=mask.device) - (per_row.cumsum(0) - per_row)[starts[:, 0]]
    skipped = 0 if bool(mask[:, 0].all()) else 1  # [0, F0) stays empty unless all rows begin with key 0
    ends = torch.full((rows, 2 * (int(per_row.max()) + skipped)), seq, dtype=torch.int32, device=mask.device)
    ends[:, 1] = 0
    ends[starts[:, 0], 2 * (rank + skipped)] = starts[:, 1].int()
    ends[stops[:, 0], 2 * (rank + skipped) + 1] = stops[:, 1].int()
    return ends[:, 1:].T.contiguous()  # the first start is 0 by definition and not stored
