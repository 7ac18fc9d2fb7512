"""Kernels of the packed operators that are compiled before any call has arrays: which ones, and how."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from splat_numba.arguments.masks import Stored, stored_pairs
from splat_numba.formats.acsr import ACSR
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.gen.packed.problem import Operator, PackedProblem
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.tensor import Tensor
from splat_numba.settings import Settings

FORWARD: dict[str, tuple[Operator, ...]] = {"sddmm": ("sddmm",), "softmax": ("softmax",), "spmm": ("spmm",)}
BACKWARD: dict[str, tuple[Operator, ...]] = {
    "sddmm": ("spmm", "spmm_transposed"),  # of q, of k
    "softmax": ("softmax_backward",),
    "spmm": ("sddmm", "spmm_transposed"),  # of the values, of v
}
UNFUSED: tuple[Operator, ...] = ("sddmm", "softmax_lse", "spmm")  # of which attention is made (`executors.cpu.unfused`)


@dataclass(frozen=True, slots=True)
class PackedJob:
    """One call of an operator over a mask, on a backend that compiles ("cpu", "cuda"), of one head; heads and batch
    entries are arguments of the kernels. Of attention's problem come the lengths.
    """

    mask: Stored
    lengths: tuple[int, int]
    problem: PackedProblem
    backend: str

    def names(self, settings: Settings) -> frozenset[str]:
        """Of the texts that compile() compiles."""
        return frozenset(name for name, _ in self._kernels(settings))

    def compile(self, settings: Settings) -> None:
        """Compile them, or read them from disk."""
        for _, compiled in self._kernels(settings):
            compiled()

    def _kernels(self, settings: Settings) -> Iterator[tuple[str, Callable[[], object]]]:
        acsr = stored_pairs(self.mask, *self.lengths)
        if not acsr.nnz:
            return iter(())
        return (_on_gpu if self.backend == "cuda" else _on_cpu)(self.problem, acsr, settings)


def jobs_of(
    mask: Stored, problem: Problem, operators: Sequence[Operator], backend: str, dtype: str
) -> Iterator[PackedJob]:  # fmt: skip
    """A job for each of the operators over a mask, with rows of head_dim numbers."""
    for operator in dict.fromkeys(operators):
        dim = 0 if operator.startswith("softmax") else problem.head_dim
        yield PackedJob(mask, (problem.seq_q, problem.seq_kv), PackedProblem(operator, dtype, 1, 1, dim), backend)


def _on_cpu(
    problem: PackedProblem, acsr: ACSR, settings: Settings
) -> Iterator[tuple[str, Callable[[], object]]]:  # fmt: skip
    from splat_numba.executors.cpu.packed import CPU_PACKED

    plan = CPU_PACKED.plan(problem, acsr, settings)
    yield CPU_PACKED.source(plan).name, partial(CPU_PACKED.compiled, plan, settings)


def _on_gpu(
    problem: PackedProblem, acsr: ACSR, settings: Settings
) -> Iterator[tuple[str, Callable[[], object]]]:  # fmt: skip
    from splat_numba.executors.gpu.executor import gpu
    from splat_numba.executors.gpu.packed import lists_of
    from splat_numba.gen.targets.packed import packed_schedule
    from splat_numba.runtime.cuda.code import cubin_for, source_of

    lists = lists_of(acsr, transposed=problem.transposed).lists
    schedule = packed_schedule(problem, lists, _tensors(problem, acsr), gpu())
    for text in dict.fromkeys(step.text for step in schedule.steps):
        yield source_of(text).name, partial(cubin_for, text, settings)


def _tensors(problem: PackedProblem, acsr: ACSR) -> dict[str, Tensor]:
    """The operator's arrays, one head of each, row after row; the result last."""
    (rows, columns), values = acsr.shape, (acsr.nnz, 1)
    tall, wide = (rows, problem.dim), (columns, problem.dim)
    shapes = {
        "sddmm": {"q": tall, "k": wide, "values": values},
        "softmax": {"values": values, "weights": values},
        "softmax_backward": {"weights": values, "dweights": values, "dvalues": values},
        "spmm": {"values": values, "v": wide, "out": tall},
        "spmm_transposed": {"values": values, "v": tall, "out": wide},
    }[problem.operator]
    unit = ITEMSIZE[problem.dtype]
    return {
        name: Tensor((1, 1, length, dim), (length * dim * unit,) * 2 + (dim * unit, unit), problem.dtype, name)
        for name, (length, dim) in shapes.items()
    }
