"""splat_numba in PyTorch: attention, modules around it, masks to and from FlexAttention. It imports PyTorch.

It also defines torch.ops.splat_numba, which saved programs of torch.export need before they are loaded.
"""

from __future__ import annotations

from typing import Any

try:
    import torch
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("splat_numba.integrations.torch needs PyTorch: python -m pip install torch") from error

from splat_numba.api import attention
from splat_numba.arguments.heads import check_heads
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import check_layout
from splat_numba.arguments.masks import Mask, describe
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.options import scale_number
from splat_numba.arguments.sizes import check_size
from splat_numba.bridges.torch.autograd import whole as _defines_the_operators  # noqa: F401
from splat_numba.bridges.torch.names import settled
from splat_numba.errors import ArgumentError
from splat_numba.integrations.block_masks import from_block_mask, to_block_mask
from splat_numba.integrations.flurka_torch import FlurkaAttention
from splat_numba.signatures import strict


class SparseAttention(torch.nn.Module):  # type: ignore[misc] # PyTorch's classes are Any
    """`splat_numba.attention` with its mask, scale and layout, as a module without parameters.

    mask, scale, layout: as in `splat_numba.attention`; a dense mask is stored as an ACSR. Raises ArgumentError,
    ArgumentTypeError, FormatError as attention() does.
    """

    @strict(ATTENTION)
    def __init__(self, mask: Mask, *, scale: float | None = None, layout: str = "bhsd") -> None:
        super().__init__()
        self.mask = settled(mask)
        self.scale = None if scale is None else scale_number(scale)
        self.layout = check_layout(layout)

    def forward(self, q: Any, k: Any, v: Any, kv_lengths: Any = None) -> Any:
        """Attention of q, k and v, (batch, heads, seq, dim) or as the layout says; see splat_numba.attention."""
        return attention(q, k, v, self.mask, scale=self.scale, layout=self.layout, kv_lengths=kv_lengths)

    def extra_repr(self) -> str:
        """The mask, and what is not as usual."""
        scale = "" if self.scale is None else f", scale={self.scale}"
        layout = "" if self.layout == "bhsd" else f", layout={self.layout!r}"
        return f"{_described(self.mask)}{scale}{layout}"


class SparseSelfAttention(torch.nn.Module):  # type: ignore[misc] # as above
    """Multi-head self-attention under a static mask: out_proj(attention(q_proj(x), k_proj(x), v_proj(x))).

    embed_dim: width of x; num_heads divides it. num_kv_heads: of keys and values, num_heads unless given, which it
    divides (grouped-query attention). bias: of all four projections. mask: as in `splat_numba.attention`. Parameters:
    q_proj, k_proj, v_proj and out_proj, each a torch.nn.Linear; masks are no part of the state_dict. Raises
    ArgumentError, ArgumentTypeError, FormatError for what does not fit.
    """

    @strict(ATTENTION)
    def __init__(
        self, embed_dim: int, num_heads: int, mask: Mask, *, num_kv_heads: int | None = None, bias: bool = True
    ) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = check_size("embed_dim", embed_dim, 1), check_size("num_heads", num_heads, 1)
        self.num_kv_heads = num_heads if num_kv_heads is None else check_size("num_kv_heads", num_kv_heads, 1)
        if embed_dim % num_heads:
            raise ArgumentError(
                f"num_heads wanted as a divisor of embed_dim {embed_dim}, got {num_heads}. Choose another number."
            )
        check_heads(num_heads, self.num_kv_heads, name="num_kv_heads", like="num_heads")
        width = embed_dim // num_heads * self.num_kv_heads
        check_flag("bias", bias)
        self.q_proj = torch.nn.Linear(embed_dim, embed_dim, bias=bias)
        self.k_proj = torch.nn.Linear(embed_dim, width, bias=bias)
        self.v_proj = torch.nn.Linear(embed_dim, width, bias=bias)
        self.out_proj = torch.nn.Linear(embed_dim, embed_dim, bias=bias)
        self.attention = SparseAttention(mask, layout="bshd")

    def forward(self, x: Any, kv_lengths: Any = None) -> Any:
        """x: (batch, seq, embed_dim), or (seq, embed_dim) without kv_lengths. Gives the same shape.

        kv_lengths: integers (batch,); tokens at or beyond an entry's length are not attended to.
        """
        # By the width of a head: where processes share the heads, as tensor parallelism does, each projects fewer.
        head_dim = self.embed_dim // self.num_heads
        q, k, v = (project(x).unflatten(-1, (-1, head_dim)) for project in (self.q_proj, self.k_proj, self.v_proj))
        return self.out_proj(self.attention(q, k, v, kv_lengths).flatten(-2))

    def extra_repr(self) -> str:
        """Sizes; the mask stands at the module inside."""
        grouped = "" if self.num_kv_heads == self.num_heads else f", num_kv_heads={self.num_kv_heads}"
        return f"embed_dim={self.embed_dim}, num_heads={self.num_heads}{grouped}"


def _described(mask: Any) -> str:
    return f"[{', '.join(map(describe, mask))}]" if isinstance(mask, tuple) else describe(mask)


__all__ = ["FlurkaAttention", "SparseAttention", "SparseSelfAttention", "attention", "from_block_mask", "to_block_mask"]
