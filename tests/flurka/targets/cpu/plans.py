"""Plans of CPU kernels for tests of their text: every kind, on a machine of small registers."""

import itertools

from flurka_numba.feature_maps import ELU, relu
from flurka_numba.targets.cpu.plan import FORWARD, SOFTMAX, CpuPlan
from tests.flurka.strategies import CORNERS, SOFTPLUS

MAPS = {"elu": ELU, "relu": relu(), "softplus": SOFTPLUS, "corners": CORNERS, "favor": "favor", "rfa": "rfa"}
KINDS = [("low_rank", SOFTMAX), *itertools.product(("flurka", "kernel"), MAPS)]
WANTS = [FORWARD, ("q",), ("keys",), ("values",), ("q", "keys", "values")]
DENOMINATORS = {"rfa": "guarded", "favor": "plain", "relu": "plain", SOFTMAX: "plain"}


def plan_of(method="flurka", name="elu", dtype="float32", wants=FORWARD, width=4, rows=4):
    return CpuPlan(
        method=method,
        dtype=dtype,
        compute_dtype="float64" if dtype == "float64" else "float32",
        feature_map=MAPS.get(name, name),
        eps={"elu": 1e-6, "favor": 1e-4, "rfa": 1e-3}.get(name, 0.0),
        denominator=DENOMINATORS.get(name, "plus_eps"),
        wants=wants,
        width=width,
        rows=rows,
    )
