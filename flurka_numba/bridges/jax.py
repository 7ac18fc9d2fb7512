"""FLuRKA and its methods inside JAX: operations that its transforms know, run by XLA through machine code.

JAX is imported here, so that only those who have its arrays import this. See splat_numba.executors.jax.operations.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flurka_numba.checks import ARRAYS, check_call
from flurka_numba.cpu.xla import backward_call, forward_call
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.results import result_shape
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executors.jax.explicit import run_partitioned
from splat_numba.executors.jax.manual import made_alike
from splat_numba.executors.jax.operations import (
    called,
    described,
    folded,
    forward_mode_refused,
    lengths_of,
    operation,
    registered,
    undifferentiable,
)
from splat_numba.executors.jax.platforms import by_platform, refuse_elsewhere
from splat_numba.runtime.device import cores
from splat_numba.settings import Settings, current

TARGET = "splat_numba_cpu_flurka"
NO_OMEGA = (
    "omega wanted without a gradient, got one asked for by JAX: random rows have none. Differentiate the other "
    "arguments, or give jax.lax.stop_gradient(omega)."
)


def attend(call: Call, backend: str) -> Any:
    """The result of a call with JAX's arrays, tracers among them. backend: what would run it.

    Raises ArgumentError, ArgumentTypeError, BackendError.
    """
    _check_place(call, backend)
    given = {name: getattr(call, name) for name in ARRAYS if name in ("q", "k", "v") or getattr(call, name) is not None}
    if call.omega is not None:
        given["omega"] = call.omega.astype(np.float32) if _is_wide(call.omega) else call.omega
    shown = {name: described(name, one) for name, one in given.items()}
    problem = check_call(call, shown)
    axes = len(shown["q"].shape)
    arrays = {name: jnp.asarray(one)[(None,) * (_axes(name) - one.ndim)] for name, one in given.items()}
    if problem.random:
        arrays["omega"] = _random_rows(arrays["omega"].astype(problem.compute_dtype))
    if problem.ragged:
        arrays["kv_lengths"] = lengths_of(call.kv_lengths, problem, axes)
    with forward_mode_refused():
        (out,) = run_partitioned(
            _operator(replace(problem, batch=1), call.backend),
            made_alike([arrays[name] for name in problem.inputs]),
            lambda mesh, *_: (NamedSharding(mesh, PartitionSpec()),),  # no rule says how: all of it is everywhere
        )
    return out.reshape(result_shape(shown["q"], problem))


def _check_place(call: Call, backend: str) -> None:
    if backend == "emulate":
        raise BackendError(
            "backend wanted as 'auto', 'cpu' or 'cuda' under JAX's transforms, got 'emulate'. Leave it out, or call it "
            "outside them."
        )
    if call.out is not None:
        raise ArgumentError(
            "out wanted left out under JAX's transforms, whose arrays cannot be written to. Leave it out."
        )


def _is_wide(omega: Any) -> bool:
    """Whether these are rows as draw_orthogonal_features() gives them, which may be known while JAX traces."""
    return isinstance(omega, np.ndarray) and omega.dtype == np.float64


def _axes(name: str) -> int:
    return 4 if name in ("q", "k", "v") else 2 if name == "omega" else 3


_random_rows = undifferentiable(lambda omega: omega, NO_OMEGA)


@lru_cache(maxsize=512)
def _operator(problem: Problem, backend: str) -> Any:
    """The arrays of problem.inputs -> (out,), for any batch size."""
    names = problem.inputs
    common = frozenset(place for place, name in enumerate(names) if name.startswith("proj") or name == "omega")
    forward = folded(partial(_run, problem, backend, False), common)
    backward = folded(partial(_run, problem, backend, True), common, apart=problem.method != "kernel")
    return operation("flurka_attention", forward, backward, len(problem.gradients), keeps_results=False)


def _run(problem: Problem, backend: str, backward: bool, *arrays: Any) -> Any:
    call = Flurka(replace(problem, batch=len(arrays[0])), backend, backward)
    return by_platform(call, call.kinds(arrays), arrays)


@dataclass(frozen=True, slots=True)
class Flurka:
    """A call over arrays of these sizes, or its gradients, as XLA runs it. backend: that was asked for."""

    problem: Problem
    backend: str
    backward: bool

    def cpu(self, *arrays: Any) -> Any:
        """The results, by a program for CPUs. Raises BackendError, CompileError."""
        refuse_elsewhere("cpu", self.backend, f"backend {self.backend!r}")
        make, label = (backward_call, f"{TARGET}_backward") if self.backward else (forward_call, TARGET)
        name, scratch = _target(make, label, self.problem, current())
        kinds = self.kinds(arrays)
        return called(name, [*kinds, *scratch], arrays)[: len(kinds)]

    def cuda(self, *arrays: Any) -> Any:
        """The same on NVIDIA GPUs. Raises ArgumentTypeError, BackendError, CompileError."""
        from flurka_numba.bridges import jax_gpu  # imports what CPUs have no use for

        refuse_elsewhere("cuda", self.backend, f"backend {self.backend!r}")
        found = (jax_gpu.gradients if self.backward else jax_gpu.forward)(self.problem, arrays)
        return [one.reshape(shape) for one, (shape, _) in zip(found, self.kinds(arrays), strict=True)]

    def kinds(self, arrays: Any) -> list[tuple[tuple[int, ...], Any]]:
        """Shapes and dtypes of the results."""
        q, _, v, *_ = arrays
        if self.backward:
            return [(one.shape, one.dtype) for one in arrays[: len(self.problem.gradients)]]
        return [((*q.shape[:3], v.shape[3]), q.dtype)]


@lru_cache(maxsize=512)
def _target(make: Callable[..., Any], label: str, problem: Problem, settings: Settings) -> tuple[str, list[Any]]:
    """XLA's name of the program for these sizes, and the result that is its scratch memory, if it wants any."""
    threads = settings.threads or cores()
    return registered(label, make(problem, settings, threads), settings, threads)
