"""A scalar's bits as another type, ``x.view(np.float32)``, for numba-cuda-mlir 0.6: that types it by a function whose
argument is a class, and can give none to a call.
"""

from __future__ import annotations

from typing import Any

from numba_cuda_mlir import types
from numba_cuda_mlir._mlir.dialects import arith
from numba_cuda_mlir.descriptor import mlir_target
from numba_cuda_mlir.extending import lower_builtin
from numba_cuda_mlir.numba_cuda.typing import signature
from numba_cuda_mlir.numba_cuda.typing.templates import AttributeTemplate, bound_function

_VIEW = "splat.view"


class _Views(AttributeTemplate):  # type: ignore[misc]
    key, metadata = types.Number, {"target": "cuda"}  # these go before "generic" ones

    @bound_function(_VIEW)
    def resolve_view(self, scalar: Any, args: Any, kws: Any) -> Any:
        """To a type of as many bits; what else there may be is for others to refuse."""
        (kind,) = args
        return signature(kind.dtype, kind) if kind.dtype.bitwidth == scalar.bitwidth else None


@lower_builtin(_VIEW, types.Number, types.NumberClass)
def _lower_view(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:  # noqa: ARG001 - it is given four
    kind = builder.get_mlir_type(builder.get_numba_type(target.name))
    builder.store_var(target, arith.bitcast(kind, builder.load_var(arguments[0])))


def install() -> None:
    """Before its own: those of one target are asked in the order in which they came."""
    context = mlir_target.typing_context
    for kind in (types.Integer, types.Float):
        known = context._attributes[kind]  # noqa: SLF001 - it has no public way
        if not any(isinstance(one, _Views) for one in known):
            known.insert(0, _Views(context))
