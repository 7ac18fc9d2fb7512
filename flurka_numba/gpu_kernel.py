"""The GPU as an executor: cubins of the generated stages, launched on the caller's stream over the arrays in place.

(Not called cuda_kernel: numba-cuda's import hook takes every module whose full name contains "numba.cuda" for its own.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from flurka_numba.executor import Executor
from flurka_numba.gpu_call import attend
from flurka_numba.problem import Call
from splat_numba.errors import BackendError


class CudaExecutor:
    """Forward calls; gradients are not on GPUs yet."""

    name = "cuda"

    def attend(self, call: Call) -> Any:
        """Run on the GPU that q is on, in the order of its framework's current stream."""
        return attend(call)

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """Refused. Raises BackendError."""
        refuse_gradients(self.name)


def refuse_gradients(backend: str) -> NoReturn:
    """Raise BackendError: this version has gradients on CPUs alone."""
    raise BackendError(
        f"gradients wanted on backend {backend!r}, which has forward calls alone in this version. Give backend='cpu' "
        "with arrays there."
    )


CUDA: Executor = CudaExecutor()
