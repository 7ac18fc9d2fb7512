"""16 bits by products on tensor cores from Ampere on, forward and gradients, against the oracle, on a GPU."""

import pytest

from tests.flurka.gpu.composed.test_on_gpu import FORWARD, KINDS, LONG, USUAL, agree, check_torch
from tests.flurka.gpu.test_forward import torch_arrays
from tests.profiles import by_place

pytestmark = pytest.mark.gpu
HALVES = ("float16", "bfloat16")


every_kind = pytest.mark.parametrize(("kind", "dtype"), by_place(KINDS, HALVES), ids=str)


@every_kind
def test_every_method_with_gradients(kind, dtype):
    method, phi = kind
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


@pytest.mark.parametrize(("size", "method"), by_place(SIZES, ["flurka", "low_rank"]))
def test_sizes(size, method):
    check_torch(USUAL.but(**{"method": method, "dtype": "bfloat16", **SIZES[size]}), target="sm80")


@every_kind
def test_forward_alone(kind, dtype):
    method, phi = kind
    case = LONG.but(method=method, feature_map=phi, dtype=dtype)
    _, arrays = torch_arrays(case, "bshd")
    out = FORWARD[method](**arrays, **case.options(), target="sm80")
    agree(case, [out], [case.wanted_vjp()[0]])
