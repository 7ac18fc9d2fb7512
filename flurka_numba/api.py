"""The public operators: FLuRKA, and the two methods that it fuses. Their gradients: gradients.py.

FLuRKA: Gupta, Guo, Yuan, Zhou and Mendis (2023), arXiv 2306.15799. Low-rank: Linformer, Wang et al. (2020), arXiv
2006.04768. Kernel: "Transformers are RNNs", Katharopoulos et al. (2020), arXiv 2006.16236 ("elu"); Performer,
Choromanski et al. (2021), arXiv 2009.14794 ("favor", and "relu" as its generalised attention); random feature
attention, Peng et al. (2021), arXiv 2103.02143 ("rfa").
"""

from __future__ import annotations

from typing import Any

from flurka_numba.backends import choose_executor
from flurka_numba.problem import Call
from splat_numba.arguments.keywords import FLURKA
from splat_numba.arguments.numbers import check_flag
from splat_numba.bridges.torch.watch import is_watched
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.runtime.jax_arrays import is_traced
from splat_numba.signatures import strict


@strict(FLURKA)
def attention(
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
) -> Any:
    """FLuRKA: out_i = phi(q_i) S / phi(q_i).z, S = phi(E k)^T F v, z = sum of rows of phi(E k); E, F = proj_k, proj_v.

    Parameters
    ----------
    q : array (batch, heads, seq_q, head_dim)
        float16, bfloat16, float32 or float64 (a GPU: the 16-bit types and float32), at any strides; one dtype for all.
        The batch axis, or batch and heads, may be missing from q, k and v together; as many heads in each.
    k : array (batch, heads, seq_kv, head_dim)
        Of q's kind.
    v : array (batch, heads, seq_kv, value_dim)
        Likewise.
    proj_k, proj_v : array (rank, seq_kv), or (heads, rank, seq_kv)
        The latter for a projection a head; proj_v is proj_k unless given; rank may exceed seq_kv.
    feature_map : "elu", "relu", "favor", "rfa" or FeatureMap
        With `c = head_dim**-1/4` and m rows of omega, and eps, with its default:

        - "elu": x + 1 where x > 0, else exp(x); eps = 1e-6 is added to the denominator.
        - "relu": `max(x, 0) + eps`, eps = 1e-3.
        - "favor": `m**-1/2 (exp(c x.w - c^2 |x|^2 / 2 - s) + eps)`, eps = 1e-4; s is the largest c x.w of a query, and
          of all slots of a head for keys.
        - "rfa": `m**-1/2 [sin(n.w), cos(n.w)]`, n = x/|x|; signed, so the denominator's magnitude is at least eps =
          1e-3.
        - a `FeatureMap`, elementwise; eps = 1e-6 is added to the denominator.
    omega : array (m, head_dim)
        Rows w, which "favor" and "rfa" need (`draw_orthogonal_features`).
    eps : float
        See feature_map.
    kv_lengths : integers (batch,)
        Rows of k and v at or beyond an entry's length count as zeros, whatever they hold, and all slots take part.
    causal : bool
        Refused where True, with the reason: every slot is a sum over all positions, later ones included.
    backend : "auto", "cpu", "cuda" or "emulate"
        "auto" runs where q is; "cuda" takes NumPy arrays too, and copies them; "emulate" runs the GPU's text on NumPy.
    target : "sm_90a", "sm80" (or "sm_80") or "simt"
        Of a GPU's texts, those that make this call; left out, the first that takes it (docs/flurka.md).
    out : array
        For the result, apart from the inputs.

    Returns
    -------
    out : array (batch, heads, seq_q, value_dim)
        Less the missing axes, of q's dtype and kind. Sums are kept in float32 (float64 for float64). A row whose
        denominator is exactly 0 gives 0. NaN in a query stays in its row; in k, v before the length, or a projection,
        it reaches every row of its head, since every slot is a sum over all tokens.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        Naming the argument; also for causal=True.
    BackendError
        For a backend that is not there.

    Notes
    -----
    PyTorch's tensors are differentiated where they require gradients (not omega), and may be traced and transformed
    (docs/pytorch.md). JAX's tracers are taken too (docs/jax.md).
    """
    refuse_causal(causal)
    call = Call(
        "flurka", q, k, v, needed(proj_k), proj_v, feature_map, omega, eps, None, kv_lengths, backend, target, out
    )
    return _attend(call)


@strict(FLURKA)
def low_rank_attention(
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
) -> Any:
    """Linformer: out = softmax(scale * q (E k)^T) (F v), E, F = proj_k, proj_v. With rank 0 the result is 0.

    Parameters
    ----------
    q, k, v, proj_k, proj_v
        As in `attention`.
    scale : float
        1/sqrt(head_dim) unless given.
    kv_lengths, causal, backend, target, out
        As in `attention`.

    Returns
    -------
    out : array (batch, heads, seq_q, value_dim)
        As in `attention`.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As `attention` does.
    """
    refuse_causal(causal)
    call = Call("low_rank", q, k, v, needed(proj_k), proj_v, None, None, None, scale, kv_lengths, backend, target, out)
    return _attend(call)


@strict(FLURKA)
def kernel_attention(
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
) -> Any:
    """Linear attention: out_i = phi(q_i) S / (phi(q_i).z) with S = phi(k)^T v, z = sum of phi(k)'s rows.

    FLuRKA *is* this over compressed keys: kernel_attention(q, E k, F v) equals attention(q, k, v, E, F).

    Parameters
    ----------
    q, k, v, feature_map, omega, eps
        As in `attention`.
    kv_lengths : integers (batch,)
        Keys at or beyond an entry's length are left out (phi(0) is not 0), and an entry without keys gives 0.
    causal, backend, target, out
        As in `attention`.

    Returns
    -------
    out : array (batch, heads, seq_q, value_dim)
        As in `attention`.

    Raises
    ------
    ArgumentError, ArgumentTypeError, BackendError
        As `attention` does.
    """
    refuse_causal(causal)
    call = Call("kernel", q, k, v, None, None, feature_map, omega, eps, None, kv_lengths, backend, target, out)
    return _attend(call)


def _attend(call: Call) -> Any:
    """The result; PyTorch has a hand in it where it records, traces, transforms or casts its tensors."""
    if is_watched(call.q, call.k, call.v, call.proj_k, call.proj_v):
        from flurka_numba.bridges.torch.door import attend

        return attend(call)
    return run(call)


def run(call: Call) -> Any:
    """The result of a call in which PyTorch has no hand; under JAX's transforms, by an operation of JAX's."""
    executor = choose_executor(call)
    if is_traced(call.q, call.k, call.v, call.proj_k, call.proj_v, call.omega, call.kv_lengths, call.out):
        from flurka_numba.bridges.jax import attend  # which imports JAX

        return attend(call, executor.name)
    return executor.attend(call)


def refuse_causal(causal: bool) -> None:
    """Raise ArgumentError, with the reason, where a causal form is asked for."""
    if causal is not False and check_flag("causal", causal):
        raise ArgumentError(
            "causal wanted as False, got True: a projection mixes all positions into every slot, so that later tokens "
            "reach earlier ones, and kernel attention keeps no state per position here. For a causal mask use "
            "splat_numba.attention(q, k, v, splat_numba.causal())."
        )


def needed(proj_k: Any) -> Any:
    """proj_k, which a method with slots cannot do without. Raises ArgumentTypeError."""
    if proj_k is None:
        raise ArgumentTypeError(
            "proj_k wanted as an array (rank, seq_kv) or (heads, rank, seq_kv), got None. Give one, or use "
            "kernel_attention, which has no projection."
        )
    return proj_k


__all__ = ["attention", "kernel_attention", "low_rank_attention"]
