"""One small problem of every family of kernels, for `compute-sanitizer --tool memcheck` (or racecheck, initcheck).

Run `python -m tests.gpu.sanitizer_run [name ...]` from the root of the repository. Exit status 1 on a wrong result.
"""

from __future__ import annotations

import sys
from functools import partial

import numpy as np
import pytest

import splat_numba as splat
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.problem import Problem as Shapes
from splat_numba.gen.targets.sm90.tile_shapes import candidates
from splat_numba.testing import Problem, check_attention, check_gradients
from tests.gpu.device_views import DeviceView, back, forced, forget
from tests.gpu.sanitizing import report
from tests.gradient_cases import CASES as GRADIENTS
from tests.gradient_cases import KEPT, keep_slopes
from tests.ops import test_packed as products
from tests.ops import test_packed_gradients as slopes
from tests.ops.packed_cases import MIXED, Case

WINDOW = splat.window(40, 3) | splat.sinks(2)
# name: problem, groups of queries, part of the order's name. Small: the sanitizer is a hundred times slower.
FAMILIES = {
    "no mask": (Problem(256, 256, splat.full(), "bfloat16", heads_q=2, head_dim=64), 2, ""),
    "natural, one group": (Problem(130, 130, splat.causal(), "float16", heads_q=2, head_dim=64), 1, "order"),
    "natural, two groups that skip": (Problem(300, 300, WINDOW, "bfloat16", heads_q=2, head_dim=64), 2, "order"),
    "natural, three groups that skip": (Problem(400, 400, WINDOW, "float16", heads_q=2, head_dim=64), 3, "order"),
    "grouped heads, odd dims": (
        Problem(150, 170, WINDOW, "float16", 2, 4, 2, head_dim=33, value_dim=17), 2, "order",
    ),
    "large dims": (Problem(130, 130, WINDOW, "bfloat16", head_dim=256, value_dim=256), 1, "order"),
    "ragged": (
        Problem(200, 260, splat.causal(), "bfloat16", 3, 2, head_dim=64, kv_lengths=(0, 77, 260)), 2, "order",
    ),
    "negative scale": (Problem(200, 200, splat.causal(), "float16", heads_q=2, head_dim=64, scale=-0.3), 2, "order"),
    "residue classes": (Problem(330, 330, splat.dilated(20, 5), "float16", heads_q=2, head_dim=64), 2, "residue"),
    "strided keys": (Problem(200, 330, splat.columns(6, 2), "float16", heads_q=2, head_dim=64), 2, ""),
    "two passes": (
        Problem(389, 389, splat.sparse_transformer_strided(13), "bfloat16", heads_q=2, head_dim=64), 2, ", then ",
    ),
    "two passes, ragged": (
        Problem(
            389, 389, splat.sparse_transformer_strided(13), "float16", 2, 2, head_dim=80, value_dim=72,
            kv_lengths=(389, 55),
        ), 1, ", then ",
    ),
    "grid": (Problem(640, 640, splat.neighborhood((20, 32), 7), "float16", heads_q=2, head_dim=64), 2, "grid"),
    "a mask a head": (
        Problem(130, 130, [splat.causal(), WINDOW], "float16", batch=2, heads_q=2, head_dim=64), 1, "order",
    ),
    "no keys": (Problem(70, 0, splat.full(), "float16", heads_q=2, head_dim=64), 1, ""),
}  # fmt: skip

SMALL_GRADIENTS = (
    "causal", "two groups that skip", "grouped heads", "odd dims", "large dims", "key lengths", "residue classes",
    "several passes, lengths", "grid", "a mask a head", "queries and keys of nobody",
)  # fmt: skip

# The packed operators: of odd numbers of pairs, so that words of 16-bit values belong to two rows and two heads.
PACKED = {
    f"packed, {name}, {dtype}": Case(acsr, dtype, 2, 2, 1, 20, 33)
    for name, acsr in (
        ("runs", splat.ACSR.from_pattern(splat.window(20, 17), 21, 45)),
        ("tiles", splat.ACSR.from_pattern(splat.window(70, 60), 149, 181)),
        ("a list", splat.ACSR.from_dense(np.random.default_rng(1).random((37, 41)) < 0.2)),
        ("several runs", splat.ACSR.from_pattern(MIXED, 50, 43)),
    )
    for dtype in ("float32", "float64", "float16")
}


KEPT_SLOPES = ("causal", "two groups that skip", "grouped heads", "odd dims")


def run_keeping_slopes(name):
    """Both kernels, where one writes slopes that the other reads."""
    with pytest.MonkeyPatch().context() as patch:
        keep_slopes(patch)
        forget()
        used = check_gradients(GRADIENTS[name], backend="cuda", frozen=KEPT[name]).used
    forget()
    return used


def run_packed(case):
    """All texts: gradients of products are made of the same ones."""
    products.check_sddmm(case, 0.3, backend="cuda")
    products.check_softmax(case, backend="cuda")
    products.check_spmm(case, backend="cuda")
    products.check_transposed(case, backend="cuda")
    slopes.check_softmax(case, backend="cuda")


def run(name):
    problem, groups, order = FAMILIES[name]
    value_dim = problem.head_dim if problem.value_dim is None else problem.value_dim
    shapes = Shapes(problem.seq_q, problem.seq_kv, problem.head_dim, value_dim, problem.dtype)
    traits = next(one for one in candidates(shapes, Gpu()) if one.groups == groups)
    with forced(pytest.MonkeyPatch(), traits, order):
        return check_attention(problem, backend="cuda").used


def run_gradients(name):
    return check_gradients(GRADIENTS[name], backend="cuda").used


def run_views():
    """Arrays that have to be copied, and an out inside a larger array."""
    q, k, v = Problem(130, 200, WINDOW, "float16", batch=2, heads_q=2, head_dim=64).arrays()
    wanted = splat.attention(q, k, v, WINDOW, backend="cuda")
    for step in (1, 2):
        frame = np.full((2, 2, 130, 64 * step), 7, np.float16)
        root = np.ascontiguousarray(q[:, :, ::-1])
        arrays = [DeviceView(root, root[:, :, ::-1]), DeviceView(k, k), DeviceView(v, v)]
        out = DeviceView(frame, frame[..., ::step])
        splat.attention(*arrays, WINDOW, out=out)
        np.testing.assert_array_equal(out.root_back()[..., ::step], wanted)
    np.testing.assert_array_equal(back(splat.attention(*arrays, WINDOW)), wanted)


def main(names):
    checks = {name: partial(run, name) for name in FAMILIES} | {"views": run_views}
    checks |= {f"gradients, {name}": partial(run_gradients, name) for name in SMALL_GRADIENTS}
    checks |= {f"slopes kept, {name}": partial(run_keeping_slopes, name) for name in KEPT_SLOPES}
    return report(checks | {name: partial(run_packed, case) for name, case in PACKED.items()}, names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
