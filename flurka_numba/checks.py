"""The arguments of a call, checked against each other: Call -> Problem. For every backend; needs no arrays.

Each message names the argument, what was wanted, what came, and the next step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from flurka_numba.feature_maps import RANDOM_MAPS, FeatureMap, resolve
from flurka_numba.problem import Call, Problem
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.runtime.options import check_scale

AXES = ("batch", "heads", "seq", "dim")
LARGEST_DIM = 256
LARGEST_LENGTH = 2**31 - 1  # token numbers are int32 in the kernels
ARRAYS = ("q", "k", "v", "proj_k", "proj_v")  # in the order of their gradients


class Described(Protocol):
    """An imported array of any backend."""

    @property
    def shape(self) -> tuple[int, ...]:
        """As the caller laid it out."""

    @property
    def dtype(self) -> str:
        """The name of its dtype."""


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
        scale=check_scale(call.scale, head_dim) if call.method == "low_rank" else 1.0,
    )


def _check_tokens(arrays: Mapping[str, Described]) -> tuple[int, int, int, int, int, int]:
    first = arrays["q"]
    if not 2 <= len(first.shape) <= 4:
        raise ArgumentError(
            f"q wanted with axes {AXES}, leading ones may be missing, got shape {first.shape}. Reshape it."
        )
    for name in ("k", "v"):
        if len(arrays[name].shape) != len(first.shape):
            raise ArgumentError(
                f"{name} wanted with {len(first.shape)} axes as q has, got shape {arrays[name].shape}. Give all the "
                "same axes."
            )
    for name in arrays.keys() - {"q", "omega"}:
        if arrays[name].dtype != first.dtype:
            raise ArgumentTypeError(
                f"{name} wanted as {first.dtype} as q is, got {arrays[name].dtype}. Convert one of them."
            )
    (batch, heads, seq_q, head_dim), k, v = (four_axes(arrays[name].shape) for name in ("q", "k", "v"))
    if k[1] != heads:
        raise ArgumentError(
            f"k wanted with q's {heads} heads, got {k[1]}: grouped-query heads are not supported. Repeat them, for "
            f"example with np.repeat(k, {max(heads // max(k[1], 1), 1)}, axis=-3), and those of v."
        )
    if k[0] != batch or k[3] != head_dim:
        raise ArgumentError(
            f"k wanted as (batch, heads, seq, head_dim) = {(batch, heads, k[2], head_dim)} to fit q, got {k}. Check "
            "batch and head_dim."
        )
    if v[:3] != k[:3]:
        raise ArgumentError(f"v wanted with (batch, heads, seq) = {k[:3]} to fit k, got {v}. Check its axes.")
    _check_sizes(seq_q, k[2], head_dim, v[3])
    return batch, heads, seq_q, k[2], head_dim, v[3]


def four_axes(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape of 2 to 4 axes as (batch, heads, seq, dim)."""
    return (1,) * (4 - len(shape)) + shape


def _check_sizes(seq_q: int, seq_kv: int, head_dim: int, value_dim: int) -> None:
    for name, dim in (("head_dim (the last axis of q)", head_dim), ("value_dim (the last axis of v)", value_dim)):
        if not 1 <= dim <= LARGEST_DIM:
            raise ArgumentError(f"{name} wanted from 1 to {LARGEST_DIM}, got {dim}. Split or pad the heads.")
    for name, length in (("q", seq_q), ("k", seq_kv)):
        if length > LARGEST_LENGTH:
            raise ArgumentError(
                f"{name} wanted with at most {LARGEST_LENGTH} tokens, got {length}. Split the sequence."
            )


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


def result_shape(q: Described, problem: Problem) -> tuple[int, ...]:
    """Shape of out, and of dout, as the caller laid q out."""
    return (*q.shape[:-1], problem.value_dim)


def check_fits(name: str, array: Described, shape: tuple[int, ...], dtype: str) -> None:
    """Raise unless ``array`` (out or dout) has the result's shape and dtype."""
    if array.shape != shape:
        raise ArgumentError(f"{name} wanted of shape {shape}, got {array.shape}. Give one of this shape.")
    if array.dtype != dtype:
        raise ArgumentTypeError(f"{name} wanted as {dtype} as q is, got {array.dtype}. Give one of this dtype.")
