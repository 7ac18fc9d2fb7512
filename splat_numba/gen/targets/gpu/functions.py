"""Device functions of a text: how they are written down, and called; and where its shared memory starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from splat_numba.gen.language.writer import INDENT, SourceWriter

DEVICE = "device = cuda.jit(device=True, forceinline=True)  # arrays that such a function is given stay registers"
WIDTH = 116  # of a line of arguments, in characters


def emit_shared_start(out: SourceWriter, name: str, alignment: int) -> None:
    """``name``: where a block's dynamic shared memory starts, aligned."""
    out.line("start = ptx.shared_address(cuda.shared.array(0, dtype=np.uint8))")
    out.line(f"{name} = u32((start + u32({alignment - 1})) & u32({2**32 - alignment}))")


@contextmanager
def device_function(out: SourceWriter, name: str, parameters: Sequence[str], docstring: str) -> Iterator[None]:
    """A function that is inlined where it is called; its statements are written inside."""
    out.line()
    out.line()
    out.line("@device")
    wrapped(out, f"def {name}", parameters, end="):")
    with out.suite():
        out.line(f'"""{docstring}"""')
        yield


def wrapped(out: SourceWriter, name: str, arguments: Sequence[str], end: str = ")") -> None:
    """``name(arguments)`` in a line, or where it is too long with a suite of lines of arguments."""
    line = f"{name}({', '.join(arguments)}{end}"
    if len(line) <= WIDTH:
        out.line(line)
        return
    out.line(f"{name}(")
    with out.suite():
        line = ""
        for argument in arguments:
            if line and len(INDENT) + len(line) + len(argument) + 1 > WIDTH:
                out.line(line.rstrip())
                line = ""
            line += f"{argument}, "
        out.line(line.rstrip())
    out.line(end)
