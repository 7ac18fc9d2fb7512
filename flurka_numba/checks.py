"""The arguments of a call, checked against each other: Call -> Problem. For every backend; needs no arrays."""

from __future__ import annotations

from collections.abc import Mapping

from flurka_numba.feature_maps import RANDOM_MAPS, FeatureMap, resolve
from flurka_numba.problem import Call, Problem
from splat_numba.arguments.heads import check_equal_heads
from splat_numba.arguments.layouts import LAYOUTS, bhsd_axes
from splat_numba.arguments.options import check_scale
from splat_numba.arguments.sizes import check_sizes
from splat_numba.arguments.tokens import Described, check_dtype, check_keys, check_tokens, check_values
from splat_numba.errors import ArgumentError
from splat_numba.runtime.tensors import check_tensor

ARRAYS = ("q", "k", "v", "proj_k", "proj_v")  # in the order of their gradients
GRADIENTS = " Gradients come from flurka_numba's functions that end in _vjp, and a layer's vjp."


def check_call(call: Call, arrays: Mapping[str, Described]) -> Problem:
    """The problem of a call. arrays: those of q, k, v, proj_k, proj_v and omega that were given.

    Raises ArgumentError, ArgumentTypeError.
    """
    batch, heads, seq_q, seq_kv, head_dim, value_dim = _check_tokens(arrays)
    rank = _check_projections(arrays, heads, seq_kv) if call.method != "kernel" else 0
    feature_map, eps, features = _check_features(call, arrays.get("omega"), head_dim)
    return Problem(
        method=call.method,
        batch=batch,
        heads=heads,
        seq_q=seq_q,
        seq_kv=seq_kv,
        rank=rank,
        head_dim=head_dim,
        value_dim=value_dim,
        features=features,
        dtype=arrays["q"].dtype,
        feature_map=feature_map,
        eps=eps,
        per_head_proj=call.method != "kernel" and len(arrays["proj_k"].shape) == 3,
        shared_proj=call.method != "kernel" and "proj_v" not in arrays,
        ragged=call.kv_lengths is not None,
        scale=check_scale(call.scale, head_dim, arrays["q"].dtype) if call.method == "low_rank" else 1.0,
    )


def check_no_autograd(call: Call) -> None:
    """Raise ArgumentError for a tensor whose gradient autograd would look for in vain, and say who has it."""
    for name in (*ARRAYS, "omega", "w_q"):
        array = getattr(call, name)
        if hasattr(type(array), "requires_grad") and array.requires_grad is True:
            check_tensor(name, array, GRADIENTS)


def _check_tokens(arrays: Mapping[str, Described]) -> tuple[int, int, int, int, int, int]:
    """batch, heads, seq_q, seq_kv, head_dim, value_dim."""
    check_tokens(arrays, LAYOUTS["bhsd"])
    for name in ("proj_k", "proj_v"):
        if name in arrays:
            check_dtype(name, arrays[name], "q", arrays["q"])
    q, k, v = (bhsd_axes(arrays[name].shape, "bhsd", 1) for name in ("q", "k", "v"))
    check_equal_heads(q[1], k[1])
    check_keys(q, k)
    check_values(k, v)
    check_sizes(q[2], k[2], q[3], v[3])
    return q[0], q[1], q[2], k[2], q[3], v[3]


def _check_projections(arrays: Mapping[str, Described], heads: int, seq_kv: int) -> int:
    """The rank."""
    shape = arrays["proj_k"].shape
    if len(shape) not in (2, 3) or shape[-1] != seq_kv or (len(shape) == 3 and shape[0] != heads):
        raise ArgumentError(
            f"proj_k wanted as (rank, seq_kv) or (heads, rank, seq_kv) with seq_kv = {seq_kv} and heads = {heads}, got "
            f"shape {shape}. Make one for this length, or cut its columns: proj_k[..., :{seq_kv}]."
        )
    if "proj_v" in arrays and arrays["proj_v"].shape != shape:
        raise ArgumentError(
            f"proj_v wanted of shape {shape} as proj_k is, got {arrays['proj_v'].shape}. Leave it out to use proj_k "
            "for the values too."
        )
    return shape[-2]


def _check_features(call: Call, omega: Described | None, head_dim: int) -> tuple[FeatureMap | str | None, float, int]:
    """The feature map, its eps, and the number of features."""
    if call.method == "low_rank":
        return None, 0.0, 0
    feature_map, eps = resolve(call.feature_map, call.eps)
    if isinstance(feature_map, FeatureMap):
        if omega is not None:
            raise ArgumentError(
                f"omega wanted left out, because feature map {feature_map.name!r} is elementwise, got an array. Leave "
                "it out, or choose feature_map='favor' or 'rfa'."
            )
        return feature_map, eps, head_dim
    if omega is None:
        raise ArgumentError(
            f"omega wanted for feature map {feature_map!r}, got None. Give flurka_numba.draw_orthogonal_features("
            f"num_features, {head_dim}, seed=0)."
        )
    if len(omega.shape) != 2 or omega.shape[0] < 1 or omega.shape[1] != head_dim:
        raise ArgumentError(
            f"omega wanted as (num_features, head_dim) with head_dim = {head_dim}, got shape {omega.shape}. Give "
            f"flurka_numba.draw_orthogonal_features(num_features, {head_dim}, seed=0)."
        )
    return feature_map, eps, omega.shape[0] * RANDOM_MAPS[feature_map].per_row
