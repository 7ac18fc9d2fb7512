"""Numba's typing context with a memory: it works out the type of every call anew, and a kernel has the same call often.

A function of Numba's or an intrinsic has one signature for given argument types, so within a kernel the first answer
serves the rest: of a Hopper kernel's 5,400 calls a few hundred differ. Private parts of Numba are used, as
runtime/pipeline.py says.
"""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

from numba import types


@cache
def remembering(context: Any) -> Any:
    """A typing context that shares all that ``context`` knows, and remembers until ``forget()``. One for each context:
    Numba's own memories are by context.
    """
    shared = copy.copy(context)
    shared.__class__ = type("Remembering", (_Remembering, type(context)), {})
    shared.signatures = {}
    return shared


class _Remembering:
    signatures: dict[Any, Any]

    def forget(self) -> None:
        """A kernel is compiled: nothing of it stays."""
        self.signatures.clear()

    def resolve_function_type(self, func: Any, args: Any, kws: Any) -> Any:
        """The signature of a call. Only of functions and types that are the same wherever they are called, by types
        alone: names stand for operations on values, and 1, 1.0 and True are equal.
        """
        plain = type(func) in (types.Function, types.NumberClass) and not kws
        if not plain or not all(isinstance(one, types.Type) for one in args):
            return super().resolve_function_type(func, args, kws)  # type: ignore[misc]  # of the class that it is mixed into
        key = func, tuple(args)
        if (found := self.signatures.get(key)) is None:
            found = super().resolve_function_type(func, args, kws)  # type: ignore[misc]  # of the class that it is mixed into
            self.signatures[key] = found
        return found
