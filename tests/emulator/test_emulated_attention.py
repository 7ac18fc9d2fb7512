"""The Hopper kernels' text, run on NumPy: results against the oracle, without a GPU."""

import pytest

import splat_numba as splat
from splat_numba.testing import Problem, check_attention
from tests.emulator.emulated_gpu import gpu  # noqa: F401 - a fixture

PROBLEMS = [
    Problem(130, 200, splat.full(), "float16", batch=1, heads_q=2, heads_kv=1, head_dim=64),
    Problem(200, 200, splat.causal(), "bfloat16", batch=2, heads_q=2, head_dim=64),
    Problem(300, 300, splat.window(40) | splat.sinks(3), "float16", batch=1, heads_q=3, head_dim=80, value_dim=72),
    Problem(260, 260, splat.window(20) | splat.strided(16), "bfloat16", batch=2, heads_q=2, head_dim=64),
    Problem(520, 520, splat.sparse_transformer_strided(16), "bfloat16", batch=1, heads_q=2, head_dim=128),
    Problem(512, 512, splat.dilated(30, 4), "float16", batch=1, heads_q=2, head_dim=32),
    Problem(384, 384, splat.neighborhood((16, 24), 5), "float16", batch=1, heads_q=2, head_dim=64),
    Problem(400, 400, splat.bigbird(32), "bfloat16", batch=1, heads_q=2, head_dim=64),
    Problem(200, 130, splat.window(50), "bfloat16", batch=3, heads_q=2, head_dim=64, kv_lengths=(0, 77, 130)),
    Problem(
        200,
        260,
        splat.causal().align_end(),
        "float16",
        batch=2,
        heads_q=2,
        head_dim=40,
        kv_lengths=(13, 260),
        layout="bshd",
    ),
    Problem(130, 130, splat.window(30), "float16", batch=1, heads_q=2, head_dim=64, scale=-0.3),
    Problem(130, 130, splat.window(30), "float16", batch=1, heads_q=2, head_dim=64, scale=0.0),
    Problem(64, 0, splat.full(), "float16", batch=1, heads_q=2, head_dim=64),
    Problem(70, 90, splat.blocked(16, 1), "float16", batch=1, heads_q=1, head_dim=256),
    Problem(128, 128, [splat.causal(), splat.window(9), splat.causal()], "float16", batch=2, heads_q=3, head_dim=64),
]


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize("problem", PROBLEMS, ids=repr)
def test_results_agree_with_the_oracle(problem):
    check_attention(problem, backend="cuda")
