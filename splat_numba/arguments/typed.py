"""The words that arguments take, for type checkers; what is taken in fact is checked when a call runs."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal, Protocol, TypeAlias, TypedDict, TypeVar

Layout: TypeAlias = Literal["bhsd", "bshd"]
Backend: TypeAlias = Literal["auto", "cpu", "cuda", "emulate"]
Target: TypeAlias = Literal["cpu", "sm_90a", "sm80", "sm_80", "simt"]
Precision: TypeAlias = Literal["ieee", "tf32"]
Ahead: TypeAlias = Literal["attention", "sddmm", "softmax", "spmm"]
DtypeName: TypeAlias = Literal["float16", "bfloat16", "float32", "float64"]

Array = TypeVar("Array")
"""An array of any framework: results are of the kind that the queries are of."""


class _Dtype(Protocol):
    """What dtypes of NumPy and PyTorch have, and text has not."""

    @property
    def itemsize(self) -> int: ...


Dtype: TypeAlias = DtypeName | type[Any] | _Dtype


class CallOptions(TypedDict, total=False):
    """Options of attention() beside return_lse, for its overloads."""

    scale: float | None
    layout: Layout
    kv_lengths: Any
    backend: Backend
    target: Target | None
    precision: Precision
    out: Any
    autotune: bool
    fused: bool | None


class VjpOptions(TypedDict, total=False):
    """Options of attention_vjp() beside return_lse, for its overloads."""

    scale: float | None
    layout: Layout
    kv_lengths: Any
    backend: Backend
    target: Target | None
    precision: Precision
    autotune: bool
    frozen: Collection[str]
