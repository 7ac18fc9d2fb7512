"""What the operators ask of a backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from flurka_numba.problem import Call


class Executor(Protocol):
    """A backend: checks, plans, compiles and runs."""

    @property
    def name(self) -> str:
        """As in the argument ``backend``."""

    @property
    def takes_rows(self) -> bool:
        """Whether attend() takes calls with a layer's rows, and makes queries of its input itself."""

    def attend(self, call: Call) -> Any:
        """Run the call: out, as an array of q's kind."""

    def attend_vjp(self, call: Call, frozen: frozenset[str]) -> tuple[Any, Callable[[Any], tuple[Any, ...]]]:
        """Run the call: out, and the function from dout to gradients of q, k, v, proj_k, proj_v (None if frozen)."""
