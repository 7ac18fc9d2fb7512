"""Which target a GPU's call gets: Hopper's stages, products of a warp on tensor cores from Ampere on, or FMA units.

The rule is splat_numba's: of its targets for GPUs, in its order, the first that takes the call's dtype on its GPU; but
stages have not every method, map and size. With `target` that one alone is asked.
"""

from __future__ import annotations

from flurka_numba.gpu.composed.plan import composes_forward, composes_gradients
from flurka_numba.problem import Problem
from splat_numba.arguments.backends import named
from splat_numba.errors import ArgumentTypeError, BackendError
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Choice
from splat_numba.gen.plans.problem import Problem as TokenProblem
from splat_numba.gen.targets.gpu.box_target import refuse_wide
from splat_numba.gen.targets.registry import first_without_reason, gpu_target
from splat_numba.gen.targets.simt.target import SIMT
from splat_numba.gen.targets.sm80.target import SM80
from splat_numba.gen.targets.sm90.target import SM90

HOPPER, WARPS = SM90.name, SM80.name  # targets that have tensor cores
TARGETS = (HOPPER, WARPS, SIMT.name)  # that this package has texts for, in the order in which they are asked


def choose_target(
    request: str | None, problem: Problem, gpu: Gpu, *, gradients: bool = False, multiplies: bool = True
) -> Choice:
    """The target of a call and why. request: the argument ``target``; gradients: they follow, and the forward pass has
    the same target; multiplies: whether the framework's arrays do products that Hopper's gradients leave to them.

    Raises ArgumentTypeError where the one that was asked for does not take the dtype, BackendError where it does not
    take the call, or none runs on the GPU.
    """
    request = named(request)
    if request not in (None, *TARGETS):  # another that splat_numba has
        names = ", ".join(map(repr, TARGETS[:-1]))
        raise BackendError(
            f"target wanted as None, {names} or {TARGETS[-1]!r} in flurka_numba, got {request!r}. Leave it out."
        )
    tokens = TokenProblem(
        problem.seq_q, problem.seq_kv, problem.head_dim, problem.value_dim, problem.dtype, problem.batch, problem.heads,
        problem.heads,
    )  # fmt: skip
    reasons: dict[str, str | None] = {}
    for name in TARGETS if request is None else [request]:
        one = gpu_target(name)
        # float32 by TF32 is attention's alone: the stages here that have tensor cores take 16 bits.
        wrong = refuse_wide(name, tokens) if name == WARPS else one.refusal(tokens)
        if wrong is not None and request is not None:
            raise ArgumentTypeError(f"dtype {wrong}")
        reasons[name] = wrong or gpu.refusal(one.runs_on(tokens))
        if name == HOPPER and reasons[name] is None:
            reasons[name] = _missing_stages(problem, gradients=gradients, multiplies=multiplies)
    if request is not None and (why := reasons[request]) is not None:
        raise BackendError(f"target {request!r} {why}. Leave target out, so that another is chosen.")
    return first_without_reason(reasons, gpu, requested=request is not None)


def _missing_stages(problem: Problem, *, gradients: bool, multiplies: bool) -> str | None:
    """Why Hopper's stages do not take a call of 16 bits; None if they do."""
    if not gradients:
        return "has no stages for so many features and so wide heads" if composes_forward(problem) else None
    if composes_gradients(problem):
        return "has no gradients of this method, map and size"
    return None if multiplies else "leaves products to the arrays, which these do not have"
