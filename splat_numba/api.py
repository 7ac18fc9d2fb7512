"""The public operators on arrays: attention, plan, compile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal, Unpack, overload

from splat_numba.arguments.dtypes import check_dtype_name
from splat_numba.arguments.heads import check_heads
from splat_numba.arguments.keywords import ATTENTION
from splat_numba.arguments.layouts import check_layout
from splat_numba.arguments.masks import Mask, store_mask
from splat_numba.arguments.numbers import check_flag
from splat_numba.arguments.options import check_scale, scale_number
from splat_numba.arguments.precision import check_precision, refuse_precision
from splat_numba.arguments.sizes import LARGEST_HEADS, LARGEST_LENGTH, LARGEST_SIZE, check_size, check_sizes
from splat_numba.arguments.typed import Array, Backend, CallOptions, Dtype, Layout, Precision, Target
from splat_numba.bridges.torch.watch import RECORDED, door, is_watched
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executors.choice import choose_executor
from splat_numba.executors.executor import HeadsMask
from splat_numba.executors.given import Given, split_parts
from splat_numba.executors.known import Known
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.language.dtypes import IEEE
from splat_numba.gen.plans.plan import Plan, with_fused
from splat_numba.gen.plans.problem import Problem
from splat_numba.kernel import Kernel
from splat_numba.runtime.graphs import stay_outside_graphs
from splat_numba.runtime.jax_arrays import is_traced
from splat_numba.settings import current
from splat_numba.signatures import strict


@overload
def attention(
    q: Array, k: Any, v: Any, mask: Mask, *, return_lse: Literal[False] = False, **options: Unpack[CallOptions]
) -> Array: ...
@overload
def attention(
    q: Array, k: Any, v: Any, mask: Mask, *, return_lse: Literal[True], **options: Unpack[CallOptions]
) -> tuple[Array, Any]: ...
@overload
def attention(q: Any, k: Any, v: Any, mask: Mask, *, return_lse: bool, **options: Unpack[CallOptions]) -> Any: ...
@strict(ATTENTION)
def attention(
    q: Any,
    k: Any,
    v: Any,
    mask: Mask,
    *,
    scale: float | None = None,
    return_lse: bool = False,
    layout: Layout = "bhsd",
    kv_lengths: Any = None,
    backend: Backend = "auto",
    target: Target | None = None,
    precision: Precision = "ieee",
    out: Any = None,
    autotune: bool = False,
    fused: bool | None = None,
) -> Any:
    """Sparse attention: out_i = sum_j p_ij v_j over the keys j that ``mask`` keeps, p_ij = softmax_j(scale * q_i.k_j).

    Parameters
    ----------
    q : array (batch, heads_q, seq_q, head_dim)
        float16, bfloat16, float32 or float64, of NumPy, PyTorch, JAX or CuPy; any strides, head_dim 1 to 256. The batch
        axis, or batch and heads, may be missing from q, k and v together. heads_q is a multiple of heads_kv; if it is
        another number, seq_q = heads_kv and seq_kv = heads_q, a layout was mistaken, and q is refused.
    k : array (batch, heads_kv, seq_kv, head_dim)
        Of q's dtype and kind.
    v : array (batch, heads_kv, seq_kv, value_dim)
        Likewise; value_dim 1 to 256.
    mask : Pattern, ACSR, bool array (seq_q, seq_kv), or a list of those, one a query head
        True: attend.
    scale : float
        1/sqrt(head_dim) unless given.
    return_lse : bool
        Whether lse is wanted as well.
    layout : "bhsd" or "bshd"
        The latter: (batch, seq, heads, dim), of out too.
    kv_lengths : integers (batch,)
        Keys at or beyond an entry's length are not kept. With GPU arrays they may be on the GPU, where their values are
        not checked.
    backend : "auto", "cpu", "cuda" or "emulate"
        "auto" runs where q is: on its GPU, or on the CPU. "cuda" takes NumPy arrays too, and copies them to the first
        GPU and back. Work goes to the framework's current stream; nothing waits for it, except with JAX and NumPy.
    target : "sm_90a", "sm80" (or "sm_80") or "simt"
        For GPUs: Hopper, 16 bits; from Ampere on, 16 bits and float32; any GPU, any dtype. Else the first of them that
        takes the call. docs/gpu.md says which arrays are copied there.
    precision : "ieee" or "tf32"
        Of products of float32 on a GPU: as exact as float32, or rounded to TF32 (11 bits), by target "sm80" alone.
    out : array
        For the result, of its shape and dtype, apart from the inputs.
    autotune : bool
        Time the tile shapes and orders of rows that are predicted to be fastest, at the first call of its kind, and
        keep the fastest, on disk too; that call may take a minute and cannot be captured in a graph (docs/gpu.md).
    fused : bool
        None leaves it to the plan whether a CPU runs one kernel (True) or sddmm, softmax and spmm one after the other
        (False), which keep values of all pairs in memory and are faster where those lie anywhere, as a graph's do.

    Returns
    -------
    out : array (batch, heads_q, seq_q, value_dim)
        Of q's dtype and kind. A row that attends to nothing, or whose scores are all -inf, gives 0.
    lse : array (batch, heads_q, seq_q), with return_lse=True
        The natural-log log-sum-exp, float32 (float64 for float64), -inf for such a row.

    Raises
    ------
    ArgumentError, ArgumentTypeError
        For an argument whose shape or value, or whose type, does not fit.
    PatternError
        For lengths that do not fit the pattern.
    FormatError
        For a malformed mask.
    BackendError
        For a backend that is not there.

    Warns
    -----
    AlignmentWarning
        Once a pattern, if a causal mask has fewer queries than keys: the last tokens want ``mask.align_end()``.

    Notes
    -----
    PyTorch's tensors are differentiated where they require gradients, out and lse alike, and may be traced and
    transformed (docs/pytorch.md). JAX's tracers are taken too (jit, grad, vmap ...): docs/jax.md. An array that is
    otherwise more than numbers in memory (masked, sparse ...) is refused: docs/gpu.md.

    NaN or inf in a query or a kept key reaches its own rows only; in a *value* it may reach other rows of the same
    tiles, because 0 x NaN is NaN. Sums are kept in float32 (float64 for float64), and must fit: scale log2(e) |q_id|,
    sum_d |q_id k_jd| with that factor and without it, and 256 sum_j |v_jd| over a row's keys stay below 3.4e38
    (1.8e308). A score below all that weighs nothing beside others.

    The first call for a kind of mask generates and compiles a kernel; later ones, and later processes, reuse it.
    """
    if fused is not None:
        fused = check_fused(fused, backend)
    if watched := is_watched(q, k, v):
        refuse_choices(fused, precision, "PyTorch records, traces, transforms or casts the call")
        if watched is RECORDED:
            attend = door()
        else:
            from splat_numba.bridges.torch.door import attend

        return attend(mask, (scale, layout, backend, target, autotune), q, k, v, kv_lengths, out, return_lse, watched)
    kind = None
    if kv_lengths is None and out is None and fused is None and autotune is False and _is_quick(q, scale, return_lse):
        kind = id(mask), scale, return_lse, layout, backend, target, precision  # what is known holds the mask
        found = _known.call(kind, (q, k, v))
        if found is not None:
            stay_outside_graphs("splat_numba")  # as choose_executor() asks
            return found if return_lse else found[0]
    check_layout(layout)
    if scale is not None and type(scale) is not float:
        scale = scale_number(scale)
    executor = choose_executor(backend, target, q, precision)
    if autotune is not False and check_flag("autotune", autotune):
        executor = executor.measured()
    if return_lse is not False:
        return_lse = check_flag("return_lse", return_lse)
    if fused is False and executor.name != "cpu":
        check_fused(fused, executor.name)
    recipe = Given(mask, executor, layout, scale, fused)
    if is_traced(q, k, v, kv_lengths):
        refuse_choices(None if fused else fused, precision, "JAX transforms the call")
        return _attend_traced(recipe, q, k, v, kv_lengths, out, return_lse, backend)
    result = executor.attend(recipe, q, k, v, kv_lengths, out, return_lse)
    if kind is not None and isinstance(mask, (Pattern, ACSR)):
        _known.learn(kind, (q, k), executor.attend_again(recipe, (q, k, v), return_lse))
    return result


_known = Known()  # PyTorch's plain calls on GPUs: what a call means is asked once


def _is_quick(q: Any, scale: Any, return_lse: Any) -> bool:
    """Whether a call may be like an earlier one: of a tensor, and no option only equals another, as 1 equals True."""
    return (
        hasattr(type(q), "is_cuda")
        and (return_lse is False or return_lse is True)
        and (scale is None or type(scale) is float)
    )


def _attend_traced(
    recipe: Given, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool, backend: str
) -> Any:
    """Under JAX's transforms. Raises ArgumentError, BackendError beside what attention() does."""
    if not recipe.executor.transformable:
        raise BackendError(
            f"backend wanted as 'auto', 'cpu' or 'cuda' under JAX's transforms, got {recipe.executor.name!r}. Leave it "
            "out, or call it outside them."
        )
    if out is not None:
        raise ArgumentError(
            "out wanted left out under JAX's transforms, whose arrays cannot be written to. Leave it out."
        )
    from splat_numba.executors.jax.calls import attend  # which imports JAX

    return attend(recipe, q, k, v, kv_lengths, return_lse, backend)


@strict(ATTENTION)
def plan(
    mask: Any,
    *,
    seq_q: int,
    seq_kv: int,
    head_dim: int,
    value_dim: int | None = None,
    heads_q: int = 1,
    heads_kv: int | None = None,
    batch: int = 1,
    dtype: Dtype,
    layout: Layout = "bhsd",
    backend: Backend = "auto",
    target: Target | None = None,
    precision: Precision = "ieee",
    backward: bool = False,
    fused: bool | None = None,
) -> Plan:
    """What attention() would do: tiles, passes, counted work, predicted time; ``plan(...).explain()`` says why.

    For the CPU it allocates nothing of the size of the mask where the mask is a Pattern in closed form; a GPU's tables
    grow with the number of row blocks.

    Parameters
    ----------
    mask : Pattern, ACSR or bool array (seq_q, seq_kv)
        One mask, as in attention().
    seq_q, seq_kv : int
        Queries and keys, in tokens.
    head_dim, value_dim : int
        Numbers of a query and key, and of a value; value_dim is head_dim unless given.
    heads_q, heads_kv : int
        Heads of queries, and of keys and values, which divide them; heads_kv is heads_q unless given.
    batch : int
        Entries of the batch.
    dtype : NumPy dtype or its name
        "bfloat16" included.
    layout, backend, target, precision
        As in attention().
    backward : bool
        Decide how gradients are made too, which ``plan(...).backward`` says then.
    fused : bool
        As in attention(), which ``plan(...).fused`` says.

    Returns
    -------
    Plan
        Which can be printed, compared and drawn.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        As attention() does.
    PlanError
        Where no plan fits the target.
    """
    executor = choose_executor(backend, target, None, precision)
    check_layout(layout)
    problem = make_problem(seq_q, seq_kv, head_dim, value_dim, heads_q, heads_kv, batch, dtype)
    stored, settings = store_mask(mask, problem.seq_q, problem.seq_kv), current()
    found = executor.plan(stored, problem, 1.0, settings)
    if fused is not None and executor.name == "cpu":
        found = with_fused(found, fused=check_fused(fused, executor.name))
    elif fused is not None:
        check_fused(fused, executor.name)
    if not check_flag("backward", backward):
        return found
    return replace(found, backward=executor.plan_backward(HeadsMask(stored, None, problem), 1.0, settings))


@strict(ATTENTION)
def compile(
    mask: Mask,
    *,
    seq_q: int,
    seq_kv: int,
    head_dim: int,
    value_dim: int | None = None,
    heads_q: int = 1,
    heads_kv: int | None = None,
    batch: int = 1,
    dtype: Dtype,
    layout: Layout = "bhsd",
    backend: Backend = "auto",
    target: Target | None = None,
    precision: Precision = "ieee",
    scale: float | None = None,
    autotune: bool = False,
    backward: bool = False,
) -> Kernel:
    """The kernel that attention() would use, for calling again and again: ``kernel(q, k, v, kv_lengths=None, ...)``.

    Batch and head counts may vary between calls; made from a Pattern in closed form, the kernel serves every length.
    backend="cuda" needs no GPU until the kernel is called, unless with autotune=True.

    Parameters
    ----------
    mask : Pattern, ACSR, bool array (seq_q, seq_kv), or a list of those, one a query head
        As in attention().
    seq_q, seq_kv, head_dim, value_dim, heads_q, heads_kv, batch, dtype, layout, backend, target, precision
        As in plan().
    scale : float
        1/sqrt(head_dim) unless given.
    autotune : bool
        As in attention(): kernels of just these sizes are timed, so give batch and head counts too. On a CPU it times
        gradients as well, which have a choice of their own.
    backward : bool
        Compile gradients too, so that the first of ``kernel.vjp`` need not wait.

    Returns
    -------
    Kernel
        With its plan, its text and its machine code.

    Raises
    ------
    ArgumentError, ArgumentTypeError, PatternError, FormatError, BackendError
        As attention() does.
    PlanError, CompileError
        Where no plan fits the target, or a text does not compile there.
    """
    executor = choose_executor(backend, target, None, precision)
    if check_flag("autotune", autotune):
        executor = executor.measured()
    check_layout(layout)
    problem = make_problem(seq_q, seq_kv, head_dim, value_dim, heads_q, heads_kv, batch, dtype)
    factor = check_scale(scale, problem.head_dim, problem.dtype)
    parts = split_parts(executor, mask, problem, factor, current())
    kernel = Kernel(parts, problem, factor, layout, executor)
    return kernel.with_backward() if check_flag("backward", backward) else kernel


def check_fused(fused: Any, backend: str) -> bool:
    """The flag. Raises ArgumentTypeError for what is none, ArgumentError where there is nothing but one kernel."""
    if check_flag("fused", fused) or backend in ("auto", "cpu"):
        return bool(fused)
    raise ArgumentError(
        f"fused wanted as True or left out with backend {backend!r}, which has attention as one kernel alone, got "
        "False. Leave it out, or give arrays on the CPU."
    )


def refuse_choices(fused: bool | None, precision: str, where: str) -> None:
    """Raise ArgumentError where one is chosen: the call goes another way, which asks the plan."""
    if fused is not None:
        if not isinstance(fused, bool):
            check_flag("fused", fused)
        raise ArgumentError(f"fused wanted left out where {where}, got a bool. Leave it out, or call it outside.")
    if precision != IEEE:  # Dynamo, which reads this, does not read what checks it
        check_precision(precision)
        refuse_precision(f"where {where}")


def make_problem(
    seq_q: int,
    seq_kv: int,
    head_dim: int,
    value_dim: int | None,
    heads_q: int,
    heads_kv: int | None,
    batch: int,
    dtype: Any,
) -> Problem:
    """A checked problem from sizes. Raises ArgumentError, ArgumentTypeError."""
    sizes = {
        "seq_q": seq_q, "seq_kv": seq_kv, "head_dim": head_dim, "batch": batch, "heads_q": heads_q,
        "value_dim": head_dim if value_dim is None else value_dim,
        "heads_kv": heads_q if heads_kv is None else heads_kv,
    }  # fmt: skip
    most = {"seq_q": LARGEST_LENGTH, "seq_kv": LARGEST_LENGTH, "heads_q": LARGEST_HEADS, "heads_kv": LARGEST_HEADS}
    checked = {name: check_size(name, size, most=most.get(name, LARGEST_SIZE)) for name, size in sizes.items()}
    check_heads(checked["heads_q"], checked["heads_kv"])
    check_sizes(*(checked[name] for name in ("seq_q", "seq_kv", "head_dim", "value_dim")))
    return Problem(**checked, dtype=check_dtype_name(dtype), precision=IEEE)


__all__ = ["attention", "compile", "plan"]
