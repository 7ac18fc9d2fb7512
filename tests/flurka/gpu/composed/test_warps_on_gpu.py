"""16 bits by products on tensor cores from Ampere on, forward and gradients, against the oracle, on a GPU."""

import pytest

from tests.flurka.gpu.composed.test_on_gpu import FORWARD, KINDS, LONG, USUAL, agree, check_torch
from tests.flurka.gpu.test_forward import torch_arrays

pytestmark = pytest.mark.gpu
HALVES = ("float16", "bfloat16")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_every_method_with_gradients(method, phi, dtype):
    case = LONG.but(method=method, feature_map=phi, dtype=dtype, kv_lengths=(3000, 1234))
    check_torch(case, "bshd", target="sm80")
    check_torch(case.but(kv_lengths=None, seq_q=130, seq_kv=257), target="sm80")


SIZES = {
    "projections of heads": {"per_head": True, "dtype": "float16"},
    "a shared projection": {"shared": True},
    "odd dims": {"head_dim": 33, "value_dim": 7, "dtype": "float16"},
    "values that no tile divides": {"head_dim": 256, "value_dim": 200},
    "values that fill a tile": {"head_dim": 128, "value_dim": 128},
}


@pytest.mark.parametrize("changes", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("method", ["flurka", "low_rank"])
def test_sizes(method, changes):
    check_torch(USUAL.but(**{"method": method, "dtype": "bfloat16", **changes}), target="sm80")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize(("method", "phi"), KINDS)
def test_forward_alone(method, phi, dtype):
    case = LONG.but(method=method, feature_map=phi, dtype=dtype)
    _, arrays = torch_arrays(case, "bshd")
    out = FORWARD[method](**arrays, **case.options(), target="sm80")
    agree(case, [out], [case.wanted_vjp()[0]])
