"""What is mended of scalars in numba-cuda-mlir 0.6: ``x.view(np.float32)``, the bits as another type, is typed there by
a function whose argument is a class, which no call can be given; min and max take all integers for signed.
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


class _Views(AttributeTemplate):
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


def _lower_extreme(signed: Any, unsigned: Any, real: Any) -> Any:
    """min or max as Numba has them: of both numbers as the type that holds them."""

    def lower(builder: Any, target: Any, arguments: Any, keywords: Any) -> None:  # noqa: ARG001 - it is given four
        kind = builder.get_numba_type(target.name)
        both = [builder.lower_cast(builder.get_numba_type(one.name), kind, builder.load_var(one)) for one in arguments]
        make = real if isinstance(kind, types.Float) else signed if kind.signed else unsigned
        builder.store_var(target, make(*both))

    return lower


lower_builtin(min, types.Integer, types.Integer)(_lower_extreme(arith.minsi, arith.minui, arith.minnumf))
lower_builtin(max, types.Integer, types.Integer)(_lower_extreme(arith.maxsi, arith.maxui, arith.maxnumf))


def install() -> None:
    """Views before its own: those of one target are asked in the order in which they came."""
    context = mlir_target.typing_context
    for kind in (types.Integer, types.Float):
        known = context._attributes[kind]  # noqa: SLF001 - it has no public way
        if not any(isinstance(one, _Views) for one in known):
            known.insert(0, _Views(context))
