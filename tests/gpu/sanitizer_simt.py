"""A small problem of each family of kernels for FMA units, for `compute-sanitizer --tool memcheck` (or racecheck).

Run `python -m tests.gpu.sanitizer_simt [name ...]` from the root of the repository. Exit status 1 on a wrong result.
"""

from __future__ import annotations

import sys
from functools import partial

import splat_numba as splat
from splat_numba.testing import Problem, check_attention, check_gradients
from tests.gpu.sanitizing import report

WINDOW = splat.window(40, 3) | splat.sinks(2)
FAMILIES = {
    "no mask": Problem(130, 200, splat.full(), "float32", 1, 2, 1, head_dim=64),
    "causal": Problem(150, 150, splat.causal(), "float64", heads_q=2, head_dim=64),
    "odd dims, grouped heads": Problem(100, 120, WINDOW, "float32", 2, 4, 2, head_dim=33, value_dim=17),
    "large dims": Problem(70, 70, WINDOW, "float32", head_dim=256, value_dim=256),
    "key lengths": Problem(100, 160, splat.causal(), "float32", 3, 2, 1, head_dim=64, kv_lengths=(0, 77, 160)),
    "residue classes": Problem(250, 250, splat.dilated(20, 5), "float32", heads_q=2, head_dim=64),
    "two passes, key lengths": Problem(
        389, 389, splat.sparse_transformer_strided(13), "float64", 2, 2, head_dim=40, kv_lengths=(389, 55)
    ),
    "grid": Problem(640, 640, splat.neighborhood((20, 32), 7), "float32", heads_q=1, head_dim=64),
    "16 bits, a mask a head": Problem(
        130, 130, [splat.causal(), WINDOW], "bfloat16", batch=1, heads_q=2, heads_kv=1, head_dim=80, value_dim=72
    ),
}


def run(name):
    """Both ways: the larger share of the allowed error."""
    return max(
        check(FAMILIES[name], backend="cuda", target="simt").used for check in (check_attention, check_gradients)
    )


def main(names):
    return report({name: partial(run, name) for name in FAMILIES}, names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
