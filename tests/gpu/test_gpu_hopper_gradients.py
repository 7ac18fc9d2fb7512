"""Gradients on Hopper where slopes are kept between their passes, which its target alone does."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import splat_numba as splat
from splat_numba import attention_backward
from splat_numba.testing import check_gradients, problems
from tests.gpu.device_views import forget
from tests.gradient_cases import CASES, KEPT, keep_slopes
from tests.profiles import draws

pytestmark = pytest.mark.gpu


@pytest.fixture
def kept(monkeypatch):
    """Slopes are kept wherever they can be."""
    keep_slopes(monkeypatch)
    forget()
    yield
    forget()


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.usefixtures("kept")
def test_every_case_that_keeps_slopes(name):
    check_gradients(CASES[name], backend="cuda", frozen=KEPT[name])


@pytest.mark.parametrize(
    "kind", [(64, 64, "float16"), (128, 128, "bfloat16")], ids=lambda kind: "x".join(map(str, kind))
)
@pytest.mark.usefixtures("kept")
@settings(max_examples=draws(20), suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_problem_that_keeps_slopes(kind, data):
    head_dim, value_dim, dtype = kind
    problem = data.draw(problems(dtypes=("float16", "bfloat16"), max_length=700))
    one = replace(problem, head_dim=head_dim, value_dim=value_dim, dtype=dtype, kv_lengths=None)
    check_gradients(one, backend="cuda")


def test_bits_repeat_where_slopes_are_kept():
    torch = pytest.importorskip("torch")
    mask = splat.window(512)
    assert splat.plan(
        mask, seq_q=4096, seq_kv=4096, heads_q=8, head_dim=128, dtype="bfloat16", backend="cuda", batch=4, backward=True
    ).backward.keys_first
    q, k, v, dout = (torch.randn(4, 8, 4096, 128, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    out, lse = splat.attention(q, k, v, mask, return_lse=True)
    wanted = attention_backward(dout, q, k, v, out, lse, mask)
    for _ in range(5):
        for one, two in zip(attention_backward(dout, q, k, v, out, lse, mask), wanted, strict=True):
            assert torch.equal(one, two)
