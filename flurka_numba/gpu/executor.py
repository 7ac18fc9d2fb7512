"""The GPU as an executor: cubins of the generated stages, launched on the caller's stream over the arrays in place.

(Not called cuda_kernel: numba-cuda's import hook takes every module whose full name contains "numba.cuda" for its own.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flurka_numba.executor import Executor
from flurka_numba.gpu.call import attend
from flurka_numba.problem import Call


class CudaExecutor:
    """Forward calls are remembered; gradients are composed of stages at every call."""

    name = "cuda"
    takes_rows = True

    def attend(self, call: Call) -> Any:
        """Run on the GPU that q is on, in the order of its framework's current stream."""
        return attend(call)

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """Run on the GPU that q is on; the gradients are of q's framework, too."""
        from flurka_numba.gpu.vjp import attend_vjp

        return attend_vjp(call, frozen)


CUDA: Executor = CudaExecutor()
