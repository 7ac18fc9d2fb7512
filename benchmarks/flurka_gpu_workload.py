"""Sizes, fresh inputs and float32 references of flurka_gpu.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

import flurka_numba

MOST_SETS = 32
CACHES = 3  # all sets together hold at least so many L2 caches
ROWS_CHECKED = 2048  # from either end
TOLERANCE, ROW_TOLERANCE = 1e-2, 6e-2  # relative Frobenius error in bf16: of the whole, and of the worst row
RELU_EPS, ELU_EPS = 1e-3, 1e-6  # the defaults of flurka_numba


@dataclass(frozen=True, slots=True)
class Size:
    """One problem: queries, keys and values (batch, heads, seq, dim) in bf16, projections (rank, seq). features: rows
    of omega of a random feature map, else 0.
    """

    batch: int
    seq: int
    rank: int = 256
    feature_map: str = "elu"
    heads: int = 16
    dim: int = 64
    features: int = 0

    @property
    def width(self) -> int:
        """model_dim."""
        return self.heads * self.dim

    @property
    def phi(self) -> str:
        """The feature map and how many rows omega has."""
        return f"{self.feature_map} {self.features}" if self.features else self.feature_map

    @property
    def nbytes(self) -> int:
        """Bytes of q, k, v and out together, 8 n D: what no method can do without."""
        return 8 * self.batch * self.seq * self.width

    def core_floor_ms(self, ceilings: dict[str, float]) -> float:
        """K and V once or their compression's operations, whichever takes longer; then Q and out once, likewise."""
        numbers = self.batch * self.seq * self.width
        streams = 4 * numbers / ceilings["gbs"] * 1e-6
        compress = 4 * self.rank * numbers / ceilings["tflops"] * 1e-9
        apply = 2 * self.dim * numbers / ceilings["tflops"] * 1e-9
        return max(streams, compress) + max(streams, apply)

    def layer_floor_ms(self, ceilings: dict[str, float]) -> float:
        """Order (b)'s large products: queries and out by their weights, and x by both projections."""
        operations = 4 * self.batch * self.seq * self.width * (self.width + self.rank)
        return operations / ceilings["tflops"] * 1e-9

    def __str__(self) -> str:
        return f"{self.batch}x{self.seq}"


@dataclass(frozen=True, slots=True)
class Workload:
    """Sets of inputs, and what all of them share. tokens: (q, k, v), (batch, heads, seq, dim) views of (batch, seq,
    heads, dim) storage, as a layer makes them. x: (batch, seq, model_dim). weights: w_q, w_k, w_v, w_o. omega: of a
    random feature map, else None.
    """

    size: Size
    proj_k: torch.Tensor = field(repr=False)
    proj_v: torch.Tensor = field(repr=False)
    tokens: list[tuple[torch.Tensor, ...]] = field(repr=False)
    x: list[torch.Tensor] = field(repr=False)
    weights: tuple[torch.Tensor, ...] = field(repr=False)
    omega: torch.Tensor | None = field(repr=False)

    @classmethod
    def draw(cls, size: Size, device: str, seed: int, *, layer: bool) -> Workload:
        """Fresh normal inputs; so many sets that the cache cannot hold them all."""
        generator = torch.Generator(device).manual_seed(seed)

        def normal(*shape: int, scale: float = 1.0) -> torch.Tensor:
            return (torch.randn(shape, generator=generator, device=device) * scale).to(torch.bfloat16)

        def heads() -> torch.Tensor:
            return normal(size.batch, size.seq, size.heads, size.dim).transpose(1, 2)

        sets = 2 if device == "cpu" else sets_beyond_cache(size.nbytes // (2 if layer else 1))
        return cls(
            size,
            normal(size.rank, size.seq, scale=size.seq**-0.5),
            normal(size.rank, size.seq, scale=size.seq**-0.5),
            [] if layer else [(heads(), heads(), heads()) for _ in range(sets)],
            [normal(size.batch, size.seq, size.width) for _ in range(sets)] if layer else [],
            tuple(normal(size.width, size.width, scale=size.width**-0.5) for _ in range(4)) if layer else (),
            _omega(size, device, seed) if size.features else None,
        )

    @property
    def sets(self) -> int:
        """How many there are."""
        return len(self.x or self.tokens)


def _omega(size: Size, device: str, seed: int) -> torch.Tensor:
    drawn = flurka_numba.draw_orthogonal_features(size.features, size.dim, seed=seed)
    return torch.from_numpy(drawn).to(device, torch.float32)


def sets_beyond_cache(nbytes: int) -> int:
    """Sets of inputs of ``nbytes`` each, so that the GPU's cache cannot hold them all."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size
    return max(1, min(MOST_SETS, -(-CACHES * cache // nbytes)))


def phi(x: torch.Tensor, feature_map: str) -> torch.Tensor:
    """The feature map, as a user of torch writes it."""
    if feature_map == "relu":
        return torch.relu(x) + RELU_EPS
    return torch.nn.functional.elu(x) + 1


def eps_of(feature_map: str) -> float:
    """What is added to the denominator."""
    return 0.0 if feature_map == "relu" else ELU_EPS


def split(rows: torch.Tensor, heads: int) -> torch.Tensor:
    """(batch, rows, model_dim) -> (batch, heads, rows, dim), a view."""
    return rows.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge(heads: torch.Tensor) -> torch.Tensor:
    """(batch, heads, rows, dim) -> (batch, rows, model_dim), a view of (batch, rows, heads, dim) storage."""
    return heads.transpose(1, 2).flatten(-2)


def slots(proj: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """proj @ tokens as one product with the columns of all heads side by side, (batch, heads, rank, dim)."""
    return split(proj @ merge(tokens), tokens.shape[1])


def linear(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, feature_map: str) -> torch.Tensor:
    """Kernel attention."""
    features_q, features_k = phi(q, feature_map), phi(k, feature_map)
    state = features_k.transpose(-1, -2) @ v
    sums = features_k.sum(-2).unsqueeze(-1)
    return (features_q @ state) / (features_q @ sums + eps_of(feature_map))


def einsums(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, feature_map: str) -> torch.Tensor:
    """Kernel attention as its formula is usually written. torch.compile makes slower code of it than of linear()."""
    features_q, features_k = phi(q, feature_map), phi(k, feature_map)
    state = torch.einsum("bhrm,bhrd->bhmd", features_k, v)
    above = torch.einsum("bhnm,bhmd->bhnd", features_q, state)
    below = torch.einsum("bhnm,bhm->bhn", features_q, features_k.sum(-2))
    return above / (below + eps_of(feature_map)).unsqueeze(-1)


def flurka_by_einsum(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, proj_k: torch.Tensor, proj_v: torch.Tensor, feature_map: str
) -> torch.Tensor:
    """FLuRKA so."""
    k, v = (torch.einsum("rn,bhnd->bhrd", proj, one) for proj, one in ((proj_k, k), (proj_v, v)))
    return einsums(q, k, v, feature_map)


def softmax(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """Attention with its scores in memory."""
    return torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, -1) @ v


def attend(method: str, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, workload: Workload) -> torch.Tensor:
    """A method by its formula, in the type of its arguments."""
    if method in ("low_rank", "flurka"):
        k, v = (slots(proj.to(q.dtype), x) for proj, x in ((workload.proj_k, k), (workload.proj_v, v)))
    if method in ("dense", "low_rank"):
        return softmax(q, k, v)
    return linear(q, k, v, workload.size.feature_map)


def check(method: str, workload: Workload, result: torch.Tensor) -> dict[str, Any]:
    """error, worst_row: of the first set's result beside float32, the first and last rows of the last batch entry."""
    rows = _rows(workload.size.seq)
    if workload.x:
        wanted, got = _layer_rows(method, workload, rows), result[-1].float()[rows]
    else:
        q, k, v = (one[-1:, [0, -1]].float() for one in workload.tokens[0])
        wanted, got = attend(method, q[:, :, rows], k, v, workload)[0], result[-1, [0, -1]].float()[:, rows]
    by_row, norms = (got - wanted).square().sum(-1), wanted.square().sum(-1)
    error, worst = (by_row.sum() / norms.sum()).item() ** 0.5, (by_row / norms).max().item() ** 0.5
    return {"error": error, "worst_row": worst, "correct": error <= TOLERANCE and worst <= ROW_TOLERANCE}


def _rows(seq: int) -> list[int]:
    some = min(ROWS_CHECKED, seq)
    return sorted({*range(some), *range(seq - some, seq)})


def _layer_rows(method: str, workload: Workload, rows: list[int]) -> torch.Tensor:
    """A layer in order (a)."""
    x = workload.x[0][-1:].float()
    w_q, w_k, w_v, w_o = (one.float() for one in workload.weights)
    heads = workload.size.heads
    q, k, v = split(x[:, rows] @ w_q, heads), split(x @ w_k, heads), split(x @ w_v, heads)
    return (merge(attend(method, q, k, v, workload)) @ w_o)[0]
