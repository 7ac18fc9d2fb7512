"""Low-rank and kernel attention fused (FLuRKA), and each alone: from generated kernels, on CPUs and GPUs.

``import flurka_numba``; the operators load Numba on first use, so importing the package stays fast.
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING

from flurka_numba import reference
from flurka_numba.feature_maps import FeatureMap, draw_orthogonal_features

if TYPE_CHECKING:
    from flurka_numba.api import attention, kernel_attention, low_rank_attention
    from flurka_numba.gradients import attention_vjp, kernel_attention_vjp, low_rank_attention_vjp
    from flurka_numba.layer import FlurkaLayer

_LAZY = {
    "attention": "flurka_numba.api",
    "attention_vjp": "flurka_numba.gradients",
    "kernel_attention": "flurka_numba.api",
    "kernel_attention_vjp": "flurka_numba.gradients",
    "low_rank_attention": "flurka_numba.api",
    "low_rank_attention_vjp": "flurka_numba.gradients",
    "FlurkaLayer": "flurka_numba.layer",
}


def __getattr__(name: str) -> object:
    if name in _LAZY:
        value = getattr(_import_module(_LAZY[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'flurka_numba' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


__all__ = [
    "FeatureMap",
    "FlurkaLayer",
    "attention",
    "attention_vjp",
    "draw_orthogonal_features",
    "kernel_attention",
    "kernel_attention_vjp",
    "low_rank_attention",
    "low_rank_attention_vjp",
    "reference",
]
