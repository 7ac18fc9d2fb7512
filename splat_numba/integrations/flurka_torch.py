"""FLuRKA self-attention as a PyTorch module with learned projections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from flurka_numba import FlurkaLayer, draw_orthogonal_features
from flurka_numba.bridges.torch.names import map_name
from splat_numba.arguments.keywords import FLURKA
from splat_numba.arguments.sizes import check_size
from splat_numba.bridges.torch.door import under_autocast
from splat_numba.bridges.torch.functions import is_differentiated
from splat_numba.bridges.torch.watch import is_seen_as_a_whole
from splat_numba.errors import ArgumentError
from splat_numba.integrations.flurka_layer import WEIGHTS, Eager, whole
from splat_numba.signatures import strict

ESTIMATES = ("favor", "rfa")  # feature maps with random rows, omega


class FlurkaAttention(torch.nn.Module):  # type: ignore[misc] # PyTorch's classes are Any
    """FLuRKA multi-head self-attention: keys and values compressed to ``rank`` slots, then kernel attention over them.

    embed_dim: width of x, num_heads divides it; seq: tokens of every x; rank: slots. feature_map: as in
    `flurka_numba.attention`; "favor" and "rfa" get embed_dim / num_heads fixed random rows, a buffer. Parameters, all
    learned: w_q, w_k, w_v, w_o (embed_dim, embed_dim), applied as x @ w, and proj_k, proj_v (rank, seq).

    forward(x): x (batch, seq, embed_dim), or without batch; gives the same shape. The arithmetic is that of
    `flurka_numba.FlurkaLayer`, whose gradients these are; second derivatives raise. In a graph of torch.compile it is
    one operator, torch.ops.flurka_numba.layer. Raises ArgumentError, ArgumentTypeError for what does not fit.
    """

    @strict(FLURKA)
    def __init__(self, embed_dim: int, num_heads: int, seq: int, rank: int, *, feature_map: Any = "elu") -> None:
        super().__init__()
        self.embed_dim, self.num_heads = check_size("embed_dim", embed_dim, 1), check_size("num_heads", num_heads, 1)
        self.seq, self.rank = check_size("seq", seq, 1), check_size("rank", rank, 1)
        if embed_dim % num_heads:
            raise ArgumentError(
                f"num_heads wanted as a divisor of embed_dim {embed_dim}, got {num_heads}. Choose another number."
            )
        self.feature_map = feature_map
        # Sums of embed_dim and of seq terms keep the size of the terms.
        for name in WEIGHTS:
            shape = (rank, seq) if name.startswith("proj") else (embed_dim, embed_dim)
            self.register_parameter(name, torch.nn.Parameter(torch.randn(shape) * shape[-1] ** -0.5))
        dim = embed_dim // num_heads
        drawn = isinstance(feature_map, str) and feature_map in ESTIMATES
        omega = torch.from_numpy(draw_orthogonal_features(dim, dim, seed=0)).float() if drawn else None
        self.register_buffer("omega", omega)
        self._layer(self._weights(), omega)

    def _weights(self) -> list[Any]:
        return [getattr(self, name) for name in WEIGHTS]

    def _layer(self, weights: Sequence[Any], omega: Any) -> FlurkaLayer:
        with torch.no_grad():
            return FlurkaLayer(*weights, heads=self.num_heads, feature_map=self.feature_map, omega=omega)

    def forward(self, x: Any) -> Any:
        """x: (batch, seq, embed_dim) or (seq, embed_dim), of the parameters' dtype and device.

        Under autocast x and the parameters are cast to its dtype, which is the result's.
        """
        *weights, x = under_autocast(*self._weights(), x)
        omega = None if self.omega is None else self.omega.to(weights[0].dtype)
        if is_seen_as_a_whole(torch, x, *weights):
            return whole(x, *weights, omega, self.num_heads, map_name(self.feature_map))
        layer = self._layer(weights, omega)
        return Eager.apply(x, layer, *weights) if is_differentiated(x, *weights) else layer(x)

    def explain(self) -> str:
        """In which order products are taken, and why; see flurka_numba.FlurkaLayer."""
        return str(self._layer(self._weights(), self.omega).explain())

    def extra_repr(self) -> str:
        """Sizes and feature map."""
        shown = self.feature_map if isinstance(self.feature_map, str) else self.feature_map.name
        sizes = f"embed_dim={self.embed_dim}, num_heads={self.num_heads}, seq={self.seq}, rank={self.rank}"
        return f"{sizes}, feature_map={shown!r}"


__all__ = ["FlurkaAttention"]
