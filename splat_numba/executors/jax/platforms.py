"""An operation of JAX whose foreign call is chosen when JAX knows for which platform it compiles.

While JAX traces it does not: arrays of a CPU and of a GPU are transformed alike. So the operation is a primitive of our
own, and what it is made of there, programs, memory and padding, is asked for while JAX lowers it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Protocol

import jax
from jax.extend.core import Primitive
from jax.interpreters import mlir

from splat_numba.errors import BackendError
from splat_numba.executors.jax.manual import type_like


class Run(Protocol):
    """What the operation is on each platform: functions of JAX's arrays that give its results. Hashable."""

    def cpu(self, *arrays: Any) -> Sequence[Any]:
        """On CPUs."""

    def cuda(self, *arrays: Any) -> Sequence[Any]:
        """On NVIDIA GPUs."""

    def __hash__(self) -> int:
        """Of all that decides the results."""


def by_platform(run: Run, kinds: Sequence[tuple[tuple[int, ...], Any]], arrays: Sequence[Any]) -> tuple[Any, ...]:
    """The operation's results, of these shapes and dtypes; arrays: alike (executors.jax.manual.made_alike)."""
    results = tuple(type_like(arrays[0], shape, dtype) for shape, dtype in kinds)
    return tuple(_call.bind(*arrays, run=run, results=results))


def refuse_elsewhere(name: str, asked: str, wanted: str) -> None:
    """Raise BackendError where another backend was asked for than JAX compiles for. name: of that one; wanted: what was
    asked for, in words.
    """
    if asked not in ("auto", name):
        raise BackendError(
            f"backend wanted as 'auto' or {name!r} where JAX compiles for that, got {wanted}. Leave it out, or put "
            "the arrays elsewhere with jax.device_put."
        )


_call = Primitive("splat_numba_call")
_call.multiple_results = True


def _types(*_arrays: Any, results: Any, **_given: Any) -> Any:
    return results


def _at_once(*arrays: Any, **given: Any) -> Any:
    """Outside of jit, which is where jax.disable_jit puts a call."""
    with jax.disable_jit(False):
        return jax.jit(partial(_call.bind, **given))(*arrays)


def _lowered(platform: str, ctx: Any, *operands: Any, run: Run, results: Any) -> Any:  # noqa: ARG001 - ctx has these
    plain = {name: [_plain(one) for one in getattr(ctx, name)] for name in ("avals_in", "avals_out")}
    return mlir.lower_fun(getattr(run, platform), multiple_results=True)(ctx.replace(**plain), *operands)


def _plain(aval: Any) -> Any:
    """An array's type on one device: what is lowered is a device's own part."""
    return jax.core.ShapedArray(aval.shape, aval.dtype)


_call.def_abstract_eval(_types)
_call.def_impl(_at_once)
for _platform in ("cpu", "cuda"):
    mlir.register_lowering(_call, partial(_lowered, _platform), platform=_platform)
