"""How every GPU text begins: what it is, its imports, and its function's first line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.targets.gpu.parts import KernelWriter


def parameters_of(
    pointers: Iterable[str], counts: Iterable[str], strides: Iterable[str] = ()
) -> tuple[tuple[str, str], ...]:
    """(name, kind) of an entry's parameters, in this order."""
    return (
        *((name, "l") for name in pointers),
        *((name, "r") for name in counts),
        *((name, "l") for name in strides),
    )


def start_text(entry: Entry, what: str, sizes: str = "", instructions: Mapping[str, str] | None = None) -> KernelWriter:
    """The text up to the function's first line, which is still to be indented.

    what, sizes: its docstring. instructions: made for this text by the factories of the instruction table, by name.
    """
    out, quotes = KernelWriter(), '"' * 3
    if sizes:
        out.line(f"{quotes}{what}")
        out.line()
        out.line(sizes)
        out.line(quotes)
    else:
        out.line(f"{quotes}{what}{quotes}")
    out.line()
    out.lines(
        """
        import numpy as np

        from splat_numba.runtime.cuda.dialect import cuda, ptx

        f32, u32, u64 = np.float32, np.uint32, np.uint64
        """
    )
    for name, made in (instructions or {}).items():
        out.line(f"{name} = ptx.{made}")
    out.place_device()
    out.line()
    out.line()
    out.line(f"def {entry.name}({', '.join(name for name, _ in entry.parameters)}):")
    return out
