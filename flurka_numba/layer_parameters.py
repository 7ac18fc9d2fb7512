"""What a layer has, checked; each message names the argument, what was wanted, what came, and the next step."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from flurka_numba.checks import check_call
from flurka_numba.problem import Call, Problem
from flurka_numba.regime import explain_layer, layer_order
from splat_numba.arguments.dtypes import dtype_name
from splat_numba.arguments.keywords import FLURKA
from splat_numba.arguments.sizes import check_size
from splat_numba.arguments.tokens import check_dtype
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.gen.language.dtypes import ITEMSIZE
from splat_numba.plain import kind
from splat_numba.runtime.arrays import check_unmasked, on_gpu
from splat_numba.signatures import strict

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
        tokens = _Described((batch, heads, seq, model_dim // heads), dtype_name(self.w_q.dtype))
        named = {"proj_k": self.proj_k, "proj_v": self.proj_v, "omega": self.omega}
        arrays = {name: describe(name, array) for name, array in named.items() if array is not None}
        call = Call("flurka", None, None, None, feature_map=self.feature_map, eps=self.eps)
        return check_call(call, {"q": tokens, "k": tokens, "v": tokens, **arrays})

    @cached_property
    def order(self) -> str:
        """Which one is used, "a" (keys and values of every token first) or "b" (x compressed first)."""
        return layer_order(self.problem())

    @strict(FLURKA)
    def explain(self, batch: int = 1, *, capability: tuple[int, int] | None = None) -> str:
        """Which order is used, and what the other methods would cost, in operations and bytes; and which target makes
        attention on a GPU, alone and with gradients, and why.

        capability: compute capability of an NVIDIA GPU, as (8, 0), of which no machine need have one; left out, that of
        the GPU that the parameters are on, if any. Raises ArgumentError for one that this version does not know.
        """
        lines = [explain_layer(self.problem(batch))]
        found = self._capability() if capability is None else capability
        return "\n".join([*lines, *explain_targets(self.problem(batch), self.order, found)] if found else lines)

    def _capability(self) -> tuple[int, int] | None:
        """Of the GPU that the parameters are on."""
        if not on_gpu(self.w_q):
            return None
        from splat_numba.runtime.cuda.device import device
        from splat_numba.runtime.cuda.frameworks import describe, framework_of, known_framework

        framework = framework_of(self.w_q) or known_framework("w_q", self.w_q)
        return device(describe("w_q", self.w_q, framework).device).capability


def explain_targets(problem: Problem, order: str, capability: tuple[int, int]) -> list[str]:
    """Lines for the targets of a layer's attention on a GPU: the core of order "b" is kernel attention over slots."""
    from flurka_numba.gpu.choice import choose_target
    from flurka_numba.gpu.gradient_plan import over_slots
    from splat_numba.gen.plans.explain import explain_choice
    from splat_numba.gen.plans.machine import SHARED_BYTES, gpu_of

    if capability not in SHARED_BYTES:
        known = ", ".join(map(str, sorted(SHARED_BYTES)))
        raise ArgumentError(f"capability wanted as one of {known}, got {capability!r}. Give (major, minor) of a GPU.")
    core, gpu = over_slots(problem) if order == "b" else problem, gpu_of(capability)
    if core.dtype == "float64":
        return ["On a GPU: float64 is refused there."]
    lines = ["On a GPU of compute capability {}.{}:".format(*capability)]
    for what, gradients in (("forward", False), ("with gradients", True)):
        try:
            first, *rest = explain_choice(choose_target(None, core, gpu, gradients=gradients))
        except BackendError as error:
            first, rest = f"refused: {error}", []
        lines += [f"{what:<15}{first}", *rest]
    return lines


Parameters.__init__ = strict(FLURKA)(Parameters.__init__)  # type: ignore[method-assign]  # the dataclass wrote it


def _check_weights(layer: Parameters) -> None:
    first = describe("w_q", layer.w_q)
    if len(first.shape) != 2 or first.shape[0] != first.shape[1]:
        raise ArgumentError(f"w_q wanted as (model_dim, model_dim), got shape {first.shape}. Give a square matrix.")
    if first.dtype not in ITEMSIZE:
        raise ArgumentTypeError(f"w_q wanted as {', '.join(ITEMSIZE)}, got {first.dtype}. Convert it.")
    for name in WEIGHTS[1:]:
        got = describe(name, getattr(layer, name))
        if got.shape != first.shape:
            raise ArgumentError(
                f"{name} wanted of shape {first.shape} as w_q is, got {got.shape}. Give a square matrix."
            )
        check_dtype(name, got, "w_q", first)
    for name in ("proj_k", "proj_v", "omega"):
        if name == "proj_k" or getattr(layer, name) is not None:
            describe(name, getattr(layer, name))


def _check_heads(layer: Parameters) -> None:
    model_dim = layer.w_q.shape[0]
    heads = check_size("heads", layer.heads)
    if heads < 1 or model_dim % heads:
        raise ArgumentError(f"heads wanted as a divisor of model_dim = {model_dim}, got {heads}. Choose another.")


def check_input(layer: Parameters, name: str, x: Any, like: tuple[int, ...] | None = None) -> None:
    """Raise unless x is (batch, seq, model_dim) or (seq, model_dim), or dout of the shape ``like``, and of the weights'
    dtype and kind.
    """
    seq, model_dim = layer.proj_k.shape[-1], layer.w_q.shape[0]
    try:
        shape = tuple(x.shape)
        fits = len(shape) in (2, 3) and shape[-2:] == (seq, model_dim) if like is None else shape == like
        alike = fits and x.dtype == layer.w_q.dtype and type(x) is type(layer.w_q)
    except Exception:  # noqa: BLE001 - describe() says of what has no shape or dtype that it is no array
        fits = alike = False
    if alike:
        return
    got, wanted = describe(name, x), describe("w_q", layer.w_q)
    if not fits and like is not None:
        raise ArgumentError(f"{name} wanted of shape {like} as x is, got {got.shape}. Give one of this shape.")
    if not fits:
        raise ArgumentError(
            f"{name} wanted as (batch, seq, model_dim) or (seq, model_dim) with seq = {seq} (the columns of proj_k) "
            f"and model_dim = {model_dim}, got shape {got.shape}. Pad it with zeros, or make another layer."
        )
    if got.dtype != wanted.dtype:
        raise ArgumentTypeError(
            f"{name} wanted as {wanted.dtype} as the weights are, got {got.dtype}. Convert one of them."
        )
    if framework(x) != framework(layer.w_q):
        raise ArgumentTypeError(
            f"{name} wanted as an array of {framework(layer.w_q)} as the weights are, got one of {framework(x)}. "
            "Convert one of them."
        )


@dataclass(frozen=True, slots=True)
class _Described:
    shape: tuple[int, ...]
    dtype: str


def framework(array: Any) -> str:
    """The name of an array's framework."""
    return type(array).__module__.partition(".")[0].replace("jaxlib", "jax")


def describe(name: str, array: Any) -> _Described:
    """Shape and dtype of any framework's array. Raises ArgumentTypeError for what is none, ArgumentError for a masked
    one.
    """
    check_unmasked(name, array)
    try:
        return _Described(tuple(int(size) for size in array.shape), dtype_name(array.dtype))
    except Exception as error:
        raise ArgumentTypeError(
            f"{name} wanted as an array, got {kind(array)}. Give one of NumPy, PyTorch, CuPy or JAX."
        ) from error
