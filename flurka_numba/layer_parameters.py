"""What a layer has, checked; each message names the argument, what was wanted, what came, and the next step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flurka_numba.checks import check_call
from flurka_numba.problem import Call, Problem
from flurka_numba.regime import explain_layer, layer_order
from splat_numba.arguments.sizes import check_size
from splat_numba.errors import ArgumentError, ArgumentTypeError

WEIGHTS = ("w_q", "w_k", "w_v", "w_o")
PARAMETERS = (*WEIGHTS, "proj_k", "proj_v", "x")  # and the input: all that can have a gradient


@dataclass(frozen=True, eq=False, repr=False)
class Parameters:
    """The values of a FlurkaLayer, which says what they are."""

    w_q: Any
    w_k: Any
    w_v: Any
    w_o: Any
    proj_k: Any
    proj_v: Any = None
    heads: int = field(kw_only=True)
    feature_map: Any = field(default="elu", kw_only=True)
    omega: Any = field(default=None, kw_only=True)
    eps: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        _check_weights(self)
        _check_heads(self)
        if len(self.proj_k.shape) not in (2, 3):
            raise ArgumentError(
                f"proj_k wanted as (rank, seq) or (heads, rank, seq), got shape {tuple(self.proj_k.shape)}. Reshape it."
            )
        self.problem()

    def __repr__(self) -> str:
        sizes = self.problem()
        shown = f"model_dim={self.w_q.shape[0]}, heads={self.heads}, rank={sizes.rank}, seq={sizes.seq_kv}"
        return f"<{type(self).__name__} {shown}, {sizes.dtype}, order {self.order!r}>"

    def problem(self, batch: int = 1) -> Problem:
        """The sizes and options of the attention inside, as one value."""
        seq, model_dim, heads = self.proj_k.shape[-1], self.w_q.shape[0], int(self.heads)
        tokens = _Described((batch, heads, seq, model_dim // heads), dtype_name(self.w_q))
        named = {"proj_k": self.proj_k, "proj_v": self.proj_v, "omega": self.omega}
        arrays = {name: describe(array) for name, array in named.items() if array is not None}
        call = Call("flurka", None, None, None, feature_map=self.feature_map, eps=self.eps)
        return check_call(call, {"q": tokens, "k": tokens, "v": tokens, **arrays})

    @cached_property
    def order(self) -> str:
        """Which one is used, "a" (keys and values of every token first) or "b" (x compressed first)."""
        return layer_order(self.problem())

    def explain(self, batch: int = 1) -> str:
        """Which order is used, and what the other methods would cost, in operations and bytes."""
        return explain_layer(self.problem(batch))


def _check_weights(layer: Parameters) -> None:
    for name in (*WEIGHTS, "proj_k"):
        if not hasattr(getattr(layer, name), "shape"):
            raise ArgumentTypeError(
                f"{name} wanted as an array, got {type(getattr(layer, name)).__name__}. Give one of x's kind."
            )
    first, dtype = tuple(layer.w_q.shape), dtype_name(layer.w_q)
    if len(first) != 2 or first[0] != first[1]:
        raise ArgumentError(f"w_q wanted as (model_dim, model_dim), got shape {first}. Give a square matrix.")
    for name in WEIGHTS[1:]:
        got = describe(getattr(layer, name))
        if got.shape != first:
            raise ArgumentError(f"{name} wanted of shape {first} as w_q is, got {got.shape}. Give a square matrix.")
        if got.dtype != dtype:
            raise ArgumentTypeError(f"{name} wanted as {dtype} as w_q is, got {got.dtype}. Convert one of them.")


def _check_heads(layer: Parameters) -> None:
    model_dim = layer.w_q.shape[0]
    heads = check_size("heads", layer.heads)
    if heads < 1 or model_dim % heads:
        raise ArgumentError(f"heads wanted as a divisor of model_dim = {model_dim}, got {heads}. Choose another.")


def check_input(layer: Parameters, name: str, x: Any) -> None:
    """Raise unless x (or dout) is (batch, seq, model_dim) or (seq, model_dim) of the weights' dtype."""
    if not hasattr(x, "shape"):
        raise ArgumentTypeError(f"{name} wanted as an array, got {type(x).__name__}. Give one of the weights' kind.")
    seq, model_dim = layer.proj_k.shape[-1], layer.w_q.shape[0]
    if len(x.shape) not in (2, 3) or tuple(x.shape[-2:]) != (seq, model_dim):
        raise ArgumentError(
            f"{name} wanted as (batch, seq, model_dim) or (seq, model_dim) with seq = {seq} (the columns of proj_k) "
            f"and model_dim = {model_dim}, got shape {tuple(x.shape)}. Pad it with zeros, or make another layer."
        )
    if x.dtype != layer.w_q.dtype and dtype_name(x) != dtype_name(layer.w_q):  # names take a microsecond each
        raise ArgumentTypeError(
            f"{name} wanted as {dtype_name(layer.w_q)} as the weights are, got {dtype_name(x)}. Convert one of them."
        )


@dataclass(frozen=True, slots=True)
class _Described:
    shape: tuple[int, ...]
    dtype: str


def describe(array: Any) -> _Described:
    """Shape and dtype of any framework's array."""
    return _Described(tuple(array.shape), dtype_name(array))


def dtype_name(array: Any) -> str:
    """The name of an array's dtype, in any framework."""
    return str(getattr(array.dtype, "name", array.dtype)).removeprefix("torch.")
