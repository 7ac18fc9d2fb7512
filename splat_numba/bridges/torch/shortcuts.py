"""Calls of our operators that are like earlier ones, past PyTorch's dispatcher.

A graph of torch.compile calls the same operator again and again, with nothing at work but itself. The dispatcher then
takes as long as the call: it reads a dozen arguments, writes them for our function, and the results back.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from splat_numba.executors.known import Known


def shorten(operator: Any, split: Callable[..., tuple[tuple[Any, ...], tuple[Any, ...]]], known: Known) -> None:
    """Have an OpOverload go to what is known of a call first. split: its arguments as options and arrays, the latter
    in the order of Again's.

    Graphs that Inductor makes call the OpOverload, which calls what is replaced here. It is private: where a PyTorch
    has no such thing, nothing is shorter. What is known answers for tensors of memory alone whose dispatch keys, after
    those of threads and modes, are those within the operator: nobody between sees anything that was to be seen.
    A profiler would, and a mode over functions: then nothing is shorter either.
    """
    usual = getattr(operator, "_op", None)
    profiled = getattr(torch._C._autograd, "_profiler_enabled", None)  # noqa: SLF001 - as torch.profiler asks
    modes = torch._C._len_torch_function_stack  # noqa: SLF001 - as in watch.py
    if usual is None or profiled is None:
        return

    def call(*arguments: Any, **named: Any) -> Any:
        if named or profiled() or modes():
            return usual(*arguments, **named)
        found = known.call(*split(*arguments))
        return usual(*arguments) if found is None else found

    operator._op = call  # noqa: SLF001
