"""torch.compile and this package: what Dynamo reads, and what stands outside its graphs (a graph break)."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

_OURS = __name__.partition(".")[0]
# What a trace of attention() passes through on its way to its operator, patterns, which may be made in a trace,
# modules, and masks for FlexAttention. No attention is computed there: Dynamo takes NumPy's arrays for tensors.
_READ = {
    *(
        f"{_OURS}.{name}"
        for name in (
            "api", "kernel", "signatures", "plain", "errors", "bridges.torch.watch", "bridges.torch.door",
            "bridges.torch.names", "bridges.torch.in_graphs", "formats.patterns", "formats.pattern_nodes",
            "formats.pattern_checks", "formats.combinations", "formats.importers",
            "integrations.torch", "integrations.flurka_torch", "integrations.flex_masks",
        )
    ),
    *(
        f"flurka_numba.{name}"
        for name in (
            "api", "problem", "bridges.torch.door", "bridges.torch.names", "bridges.torch.in_graphs",
            "bridges.torch.given",
        )
    ),
}  # fmt: skip
_COMPILERS = ("numba", "numba_cuda", "llvmlite")  # which a first call runs
_left_alone: set[str] = set()


def stay_outside_graphs(package: str) -> None:
    """Have Dynamo neither trace nor inline a package's functions and what they call. Each public one asks, in 50 ns.

    Dynamo may be imported at any time, and PyTorch does so only where torch.compile is called: hence at every call, and
    never an import here. torch.compiler.disable() would cost every call more than a microsecond.
    """
    if package in _left_alone:
        return
    add = getattr(sys.modules.get("torch._dynamo.trace_rules"), "add", None)
    if add is not None:
        for one in {package, _OURS} - _left_alone:
            for name in _unread(one, sys.modules[one].__path__):
                add(name)
            _left_alone.add(one)
        for name in set(_COMPILERS) - _left_alone:
            add(name)
            _left_alone.add(name)


def look_away() -> Any:
    """Have Dynamo look at no function that this thread calls, until look_again() gets what this gives; 0.1 us.

    A folder that it leaves alone says nothing of what its functions call: of Numba's, functools', with our read-only
    arrays, at which Dynamo stops with an assertion of its own.
    """
    frames = sys.modules.get("torch._C._dynamo.eval_frame")
    if frames is None or frames.get_eval_frame_callback() is None:
        return None
    return frames.set_eval_frame(None)


def look_again(callback: Any) -> None:
    """End what look_away() began."""
    if callback is not None:
        sys.modules["torch._C._dynamo.eval_frame"].set_eval_frame(callback)


def _unread(package: str, paths: Sequence[str]) -> Iterator[str]:
    """The largest parts of a package without anything that is to be read; none is imported."""
    within = f"{package}."
    if not any(name.startswith(within) for name in _READ):
        yield package
        return
    for found in pkgutil.iter_modules(paths, within):
        if found.name not in _READ:
            name = found.name.rpartition(".")[2]
            yield from _unread(found.name, [os.path.join(path, name) for path in paths])  # noqa: PTH118 - plain text


# What torch.compiler.disable() marks functions with. The first trace that comes here stops, and this runs; from then on
# Dynamo knows the packages' folders.
stay_outside_graphs._torchdynamo_disable = True  # type: ignore[attr-defined]  # noqa: SLF001
