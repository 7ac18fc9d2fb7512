"""The public operators with their gradients: each gives its result and the function from dout to gradients."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from flurka_numba.api import needed, refuse_causal
from flurka_numba.backends import choose_executor
from flurka_numba.checks import ARRAYS
from flurka_numba.problem import Call
from splat_numba.arguments.frozen import check_frozen
from splat_numba.arguments.keywords import FLURKA
from splat_numba.signatures import strict

Vjp: TypeAlias = Callable[[Any], tuple[Any, ...]]


@strict(FLURKA)
def attention_vjp(
    q: Any,
    k: Any,
    v: Any,
    proj_k: Any,
    proj_v: Any = None,
    *,
    feature_map: Any = "elu",
    omega: Any = None,
    eps: float | None = None,
    kv_lengths: Any = None,
    causal: bool = False,
    backend: str = "auto",
    target: str | None = None,
    out: Any = None,
    frozen: Collection[str] = (),
) -> tuple[Any, Vjp]:
    """(out, vjp) of `attention`; vjp(dout) gives the gradients of q, k, v, proj_k, proj_v as a tuple in that order.

    Parameters
    ----------
    q, k, v, proj_k, proj_v, feature_map, omega, eps, kv_lengths, causal, backend, target, out
        As in `attention`.
    frozen : names of arguments
        Whose gradient is not wanted and not computed.

    Returns
    -------
    out : array (batch, heads, seq_q, value_dim)
        As in `attention`.
    vjp : function
        vjp(dout), dout of out's shape, dtype and place. A gradient has its argument's shape, dtype and kind, and is
        None for frozen and absent arguments. Without proj_v, proj_k's gradient is the sum of what keys and values ask
        of it. omega, eps and the stabilisers of "favor" have none. Gradients are deterministic: the same call gives the
        same bits. Inputs must not change between the two calls.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As `attention` does.
    """
    refuse_causal(causal)
    call = Call(
        "flurka", q, k, v, needed(proj_k), proj_v, feature_map, omega, eps, None, kv_lengths, backend, target, out
    )
    return choose_executor(call).attend_vjp(call, check_frozen(frozen, ARRAYS))


@strict(FLURKA)
def low_rank_attention_vjp(
    q: Any,
    k: Any,
    v: Any,
    proj_k: Any,
    proj_v: Any = None,
    *,
    scale: float | None = None,
    kv_lengths: Any = None,
    causal: bool = False,
    backend: str = "auto",
    target: str | None = None,
    out: Any = None,
    frozen: Collection[str] = (),
) -> tuple[Any, Vjp]:
    """(out, vjp) of `low_rank_attention`.

    Parameters
    ----------
    q, k, v, proj_k, proj_v, scale, kv_lengths, causal, backend, target, out
        As in `low_rank_attention`.
    frozen : names of arguments
        As in `attention_vjp`.

    Returns
    -------
    out : array (batch, heads, seq_q, value_dim)
        As in `low_rank_attention`.
    vjp : function
        As in `attention_vjp`.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As `attention` does.
    """
    refuse_causal(causal)
    call = Call("low_rank", q, k, v, needed(proj_k), proj_v, None, None, None, scale, kv_lengths, backend, target, out)
    return choose_executor(call).attend_vjp(call, check_frozen(frozen, ARRAYS))


@strict(FLURKA)
def kernel_attention_vjp(
    q: Any,
    k: Any,
    v: Any,
    *,
    feature_map: Any = "elu",
    omega: Any = None,
    eps: float | None = None,
    kv_lengths: Any = None,
    causal: bool = False,
    backend: str = "auto",
    target: str | None = None,
    out: Any = None,
    frozen: Collection[str] = (),
) -> tuple[Any, Vjp]:
    """(out, vjp) of `kernel_attention`.

    Parameters
    ----------
    q, k, v, feature_map, omega, eps, kv_lengths, causal, backend, target, out
        As in `kernel_attention`.
    frozen : names of arguments
        As in `attention_vjp`.

    Returns
    -------
    out : array (batch, heads, seq_q, value_dim)
        As in `kernel_attention`.
    vjp : function
        As in `attention_vjp`; the last two gradients are None, since there are no projections.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As `attention` does.
    """
    refuse_causal(causal)
    call = Call("kernel", q, k, v, None, None, feature_map, omega, eps, None, kv_lengths, backend, target, out)
    return choose_executor(call).attend_vjp(call, check_frozen(frozen, ARRAYS[:3]))


__all__ = ["attention_vjp", "kernel_attention_vjp", "low_rank_attention_vjp"]
