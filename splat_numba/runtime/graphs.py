"""torch.compile and this package: its functions stand outside graphs, and are called as they are (a graph break)."""

from __future__ import annotations

import sys

# What stands below every public function: this package, and the compilers that a first call runs.
_BELOW = {__name__.partition(".")[0], "numba", "numba_cuda", "llvmlite"}
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
        for one in ({package} | _BELOW) - _left_alone:
            add(one)
            _left_alone.add(one)


# What torch.compiler.disable() marks functions with. The first trace that comes here stops, and this runs; from then on
# Dynamo knows the package's folder.
stay_outside_graphs._torchdynamo_disable = True  # type: ignore[attr-defined]  # noqa: SLF001
