"""Numba's machine code as bytes: what it would put into a disk cache of its own, to be kept where we say.

Its own reads files that nobody has hashed, from folders that an environment variable chooses, at paths that it needs
to be able to write to. Here bytes are handed over, and what was hashed is what is loaded.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from types import ModuleType
from typing import Any

from splat_numba.runtime.interrupts import uninterrupted
from splat_numba.runtime.source import unload

with uninterrupted():
    from numba.core import config
    from numba.core.caching import _Cache
    from numba.core.compiler import CompileResult
    from numba.core.compiler_lock import global_compiler_lock
    from numba.core.dispatcher import Dispatcher
    from numba.core.registry import cpu_target
    from numba.core.serialize import dumps

# What changes machine code beside text, signature and processor: environment variables of Numba's, NUMBA_OPT and so on.
OPTIONS = ("OPT", "LOOP_VECTORIZE", "SLP_VECTORIZE", "BOUNDSCHECK", "DEBUGINFO_DEFAULT", "ENABLE_AVX")


def target() -> str:
    """The processor and the options that machine code is made for."""
    options = {name: getattr(config, name, None) for name in OPTIONS}
    return f"{cpu_target.target_context.codegen().magic_tuple()} {options}"


def compile_function(function: Any, signature: Any) -> bytes | None:
    """Compile a dispatcher for one signature, and no other. Returns its machine code, None for code that holds
    addresses of this process. Raises whatever Numba does.
    """
    return _through_bridge(function, signature, _Bridge(None))


def compile_module(module: ModuleType, signatures: Mapping[str, Any]) -> dict[str, bytes] | None:
    """Machine code of a text's functions by the short way, None where that does not serve; then Numba's own remains.
    The module cannot be used afterwards.
    """
    declare()
    try:
        with uninterrupted():
            from splat_numba.runtime import pipeline

        with pipeline.section():
            return {name: pipeline.compile_entry(module, name, one) for name, one in signatures.items()}
    except Exception:  # noqa: BLE001 - Numba's own way says what is wrong, if anything is
        return None


def load_function(function: Any, signature: Any, stored: bytes) -> None:
    """Give a dispatcher the machine code of one signature, and no other. Raises whatever Numba does with noise."""
    if not isinstance(stored, bytes):
        raise TypeError(f"machine code wanted as bytes, got {type(stored).__name__}.")
    _through_bridge(function, signature, _Bridge(stored))


@cache
def declare() -> None:
    """Have Numba's declarations loaded, all of them, which its first compile would do in the middle of things."""
    with global_compiler_lock, uninterrupted():
        cpu_target.target_context.refresh()


def _through_bridge(function: Any, signature: Any, bridge: _Bridge) -> bytes | None:
    declare()
    function._cache = bridge  # noqa: SLF001 - Numba has no public way
    function.compile(signature)
    function.disable_compile()
    return bridge.bytes


def release(module: ModuleType) -> None:
    """Let Numba forget the functions of a module that nobody calls any more.

    Machine code that was loaded stays, 1 MB a kernel: Numba never takes modules out of LLVM's engine, because that
    crashed. What the short way compiled was never in there.
    """
    for one in list(vars(module).values()):
        if isinstance(one, Dispatcher) and one.py_func.__globals__ is vars(module):  # not those that others import too
            for compiled in one.overloads.values():
                with suppress(KeyError):
                    cpu_target.target_context.remove_user_function(compiled.entry_point)
    unload(module)


class _Bridge(_Cache):
    """Stands where a dispatcher has its disk cache."""

    cache_path = None

    def __init__(self, stored: bytes | None) -> None:
        self.bytes = stored

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        if self.bytes is None:
            return None
        target_context.refresh()
        parts = pickle.loads(self.bytes)  # noqa: S301 - nobody else may write to the folder
        return CompileResult._rebuild(target_context, *parts)  # noqa: SLF001 - as Numba's own cache does

    def save_overload(self, sig: Any, cres: Any) -> None:
        if not cres.lifted and not cres.library.has_dynamic_globals:
            self.bytes = dumps(cres._reduce())  # noqa: SLF001 - as above

    def enable(self) -> None: ...

    def disable(self) -> None: ...

    def flush(self) -> None: ...
