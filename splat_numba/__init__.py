"""Sparse attention in pure Python: kernels generated from the geometry of a static mask, compiled by Numba.

``import splat_numba as splat``; the operators load Numba on first use, so importing the package stays fast.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from splat_numba import errors, reference
from splat_numba.errors import (
    AlignmentWarning,
    ArgumentError,
    BackendError,
    CompileError,
    EmulationError,
    FormatError,
    PatternError,
    PlanError,
    SplatError,
)
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.geometry import Geometry, geometry
from splat_numba.formats.importers import from_flash_attention, from_sliding_window
from splat_numba.formats.parse import parse
from splat_numba.formats.patterns import (
    Pattern,
    bigbird,
    blocked,
    causal,
    columns,
    dilated,
    documents,
    full,
    global_tokens,
    longformer,
    neighborhood,
    prefix,
    random_blocks,
    sinks,
    sparse_transformer_fixed,
    sparse_transformer_strided,
    strided,
    window,
)
from splat_numba.formats.predicate import from_predicate
from splat_numba.version import __version__ as __version__

if TYPE_CHECKING:
    from splat_numba import testing
    from splat_numba.api import attention, compile, plan
    from splat_numba.formats.drawing import draw
    from splat_numba.gen.plans.plan import Plan
    from splat_numba.gradients import attention_backward, attention_vjp
    from splat_numba.kernel import Kernel
    from splat_numba.packed import sddmm, softmax, spmm
    from splat_numba.packed_gradients import sddmm_vjp, softmax_vjp, spmm_vjp
    from splat_numba.warm import warm_up

from_dense = ACSR.from_dense
from_csr = ACSR.from_csr

_LAZY = {
    "attention": "splat_numba.api",
    "attention_backward": "splat_numba.gradients",
    "attention_vjp": "splat_numba.gradients",
    "compile": "splat_numba.api",
    "draw": "splat_numba.formats.drawing",
    "plan": "splat_numba.api",
    "sddmm": "splat_numba.packed",
    "sddmm_vjp": "splat_numba.packed_gradients",
    "softmax": "splat_numba.packed",
    "softmax_vjp": "splat_numba.packed_gradients",
    "spmm": "splat_numba.packed",
    "spmm_vjp": "splat_numba.packed_gradients",
    "warm_up": "splat_numba.warm",
    "Kernel": "splat_numba.kernel",
    "Plan": "splat_numba.gen.plans.plan",
}


if not TYPE_CHECKING:  # a checker reads the imports above, and refuses other names

    def __getattr__(name: str) -> object:
        if name in _LAZY:
            value = getattr(_import_module(_LAZY[name]), name)
            globals()[name] = value
            return value
        if name == "testing":
            return _import_module("splat_numba.testing")
        raise AttributeError(f"module 'splat_numba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})


__all__ = [
    "ACSR",
    "AlignmentWarning",
    "ArgumentError",
    "BackendError",
    "CompileError",
    "EmulationError",
    "FormatError",
    "Geometry",
    "Kernel",
    "Pattern",
    "PatternError",
    "Plan",
    "PlanError",
    "SplatError",
    "attention",
    "attention_backward",
    "attention_vjp",
    "bigbird",
    "blocked",
    "causal",
    "columns",
    "compile",
    "dilated",
    "documents",
    "draw",
    "errors",
    "from_csr",
    "from_dense",
    "from_flash_attention",
    "from_predicate",
    "from_sliding_window",
    "full",
    "geometry",
    "global_tokens",
    "longformer",
    "neighborhood",
    "parse",
    "plan",
    "prefix",
    "random_blocks",
    "reference",
    "sddmm",
    "sddmm_vjp",
    "sinks",
    "softmax",
    "softmax_vjp",
    "sparse_transformer_fixed",
    "sparse_transformer_strided",
    "spmm",
    "spmm_vjp",
    "strided",
    "testing",
    "warm_up",
    "window",
]
