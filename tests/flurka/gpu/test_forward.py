"""Forward calls on a GPU, against the oracle: arrays of every framework, strides, streams, graphs."""

import numpy as np
import pytest
from hypothesis import given, seed, settings

import flurka_numba
from splat_numba.errors import ArgumentTypeError
from tests.flurka.layer_queries import USUAL as QUERIES
from tests.flurka.layer_queries import WAYS
from tests.flurka.layer_queries import check as check_queries
from tests.flurka.strategies import EVERY_KIND, Case, cases
from tests.flurka.targets.sm90.test_forward import EMPTY, OPERAND, RANDOM, USUAL, WIDE, WIDE_RANDOM, check
from tests.profiles import EXPLORING, by_place, draws

pytestmark = pytest.mark.gpu
LONG = Case(dtype="bfloat16", batch=2, heads=4, seq_q=1000, seq_kv=3000, rank=256, head_dim=64, value_dim=64)


DIMS = ((16, 16), (64, 64), (33, 20), (80, 8))


@pytest.mark.parametrize("part", range(len(EVERY_KIND)))  # parts run side by side: most of the time goes into compiling
def test_every_case_agrees_with_the_oracle(part):
    """What texts depend on is the part's, and all else is drawn."""
    (head_dim, value_dim), dtype = DIMS[part % len(DIMS)], tuple(OPERAND)[part % 2]
    rows, eps = (8, 64, 31)[part % 3], (None, 1e-2)[part // 2 % 2]
    texts = {"head_dim": head_dim, "value_dim": value_dim, "rows": rows, "eps": eps}

    @seed(part)
    @settings(max_examples=draws(6), database=None, derandomize=False)
    @given(cases(kinds=[EVERY_KIND[part]], dtypes=(dtype,)))
    def agrees(case):
        check(case if EXPLORING else case.but(**texts), backend="cuda")

    agrees()


@pytest.mark.parametrize("changes", EMPTY.values(), ids=EMPTY)
def test_empty_arrays(changes):
    check(Case(dtype="float16", **changes), backend="cuda")


@pytest.mark.parametrize("changes", WIDE.values(), ids=WIDE)
def test_each_way_of_dividing_the_work(changes):
    check(LONG.but(**changes) if "seq_kv" not in changes else USUAL.but(**changes), backend="cuda")


@pytest.mark.parametrize("changes", WAYS.values(), ids=WAYS)
def test_queries_that_one_stage_makes_and_uses(changes):
    torch, case = pytest.importorskip("torch"), QUERIES.but(**changes)
    to = lambda array: torch.from_numpy(array.astype(np.float32)).to(getattr(torch, case.dtype)).cuda()  # noqa: E731
    check_queries(case, backend="cuda", to=to, back=lambda array: array.float().cpu().numpy())


def test_a_layer_whose_weights_and_input_are_views():
    torch = pytest.importorskip("torch")
    rng = torch.Generator("cuda").manual_seed(0)

    def draw(*shape):
        return (torch.randn(shape, generator=rng, device="cuda") * shape[-1] ** -0.5).bfloat16()

    weights, projections, x = [draw(256, 256) for _ in range(4)], [draw(40, 900), draw(40, 900)], draw(2, 900, 256)
    plain = flurka_numba.FlurkaLayer(*weights, *projections, heads=4)
    turned = flurka_numba.FlurkaLayer(*(w.T.contiguous().T for w in weights), *projections, heads=4)
    wide = torch.full((2, 900, 320), torch.nan, device="cuda", dtype=torch.bfloat16)
    wide[..., 3:259] = x  # rows that do not begin at 16 bytes
    wanted = plain(x)
    assert torch.isfinite(wanted).all()
    for got in (turned(x), plain(wide[..., 3:259]), plain(x[1])):
        same = wanted[1] if got.ndim == 2 else wanted
        # cuBLAS may sum in another order, and then slots round another way: each result is 3e-3 off the exact one.
        assert ((got - same).float().norm() / same.float().norm()).item() < 1e-2


@pytest.mark.parametrize(("method", "dtype"), by_place(["flurka", "kernel", "low_rank"], OPERAND))
def test_long_sequences(method, dtype):
    check(LONG.but(method=method, dtype=dtype, kv_lengths=(3000, 1234)), backend="cuda")


@pytest.mark.parametrize(("way", "phi"), by_place(WIDE_RANDOM, RANDOM))
def test_each_way_of_dividing_the_work_of_random_features(way, phi):
    check(USUAL.but(**{"seq_q": 500, "feature_map": phi, **WIDE_RANDOM[way]}), backend="cuda")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    by_place([("flurka", "favor"), ("kernel", "favor"), ("kernel", "rfa"), ("flurka", "rfa")], OPERAND),
    ids=str,
)
def test_random_features_of_long_sequences(kind, dtype):
    method, phi = kind
    check(LONG.but(method=method, feature_map=phi, dtype=dtype, rows=128, kv_lengths=(3000, 1234)), backend="cuda")


def torch_arrays(case, layout="bhsd"):
    torch = pytest.importorskip("torch")
    found = {}
    for name, array in case.arrays().items():
        one = torch.from_numpy(array.astype(np.float32)).cuda()
        one = one if name == "omega" else one.to(getattr(torch, case.dtype))
        if layout == "bshd" and name in "qkv":
            one = one.transpose(1, 2).contiguous().transpose(1, 2)
        found[name] = one
    return torch, found


def wanted(case):
    return case.wanted_vjp()[0]


def close(got, case):
    right = wanted(case)
    return np.abs(got.float().cpu().numpy() - right).max() <= 0.02 * np.abs(right).max()


@pytest.mark.parametrize("method", ["flurka", "kernel", "low_rank"])
@pytest.mark.parametrize("layout", ["bhsd", "bshd"])
@pytest.mark.parametrize("head_dim", [64, 20])
def test_torch_arrays_at_any_strides(method, layout, head_dim):
    case = LONG.but(method=method, head_dim=head_dim, value_dim=head_dim)
    torch, arrays = torch_arrays(case, layout)
    got = getattr(flurka_numba, {"flurka": "attention"}.get(method, f"{method}_attention"))(**arrays)
    assert got.is_cuda
    assert close(got, case)
    out = torch.full_like(got, torch.nan)
    again = getattr(flurka_numba, {"flurka": "attention"}.get(method, f"{method}_attention"))(**arrays, out=out)
    assert again is out
    assert torch.equal(out, got)  # the same inputs give the same bits


@pytest.mark.parametrize("kind", ["host", "int32", "int64"])
def test_key_lengths_of_host_and_device(kind):
    case = LONG.but(kv_lengths=(3000, 1234))
    torch, arrays = torch_arrays(case)
    lengths = np.array(case.kv_lengths)
    if kind != "host":
        lengths = torch.tensor(lengths, dtype=getattr(torch, kind), device="cuda")
    for name in "kv":
        arrays[name][1, :, 1234:] = torch.nan
    assert close(flurka_numba.attention(**arrays, kv_lengths=lengths), case)


@pytest.mark.parametrize("kind", ["host", "float64", "float16", "strided", "torch on the host"])
@pytest.mark.parametrize("phi", RANDOM)
def test_omega_of_host_and_device(kind, phi):
    case = LONG.but(feature_map=phi, rows=64)
    torch, arrays = torch_arrays(case)
    omega = arrays["omega"].half().float()
    wide = torch.full((128, 192), torch.nan, device="cuda")
    wide[::2, 1:129:2] = omega
    arrays["omega"] = {
        "host": omega.cpu().numpy(), "float64": omega.double(), "float16": omega.half(), "strided": wide[::2, 1:129:2],
        "torch on the host": omega.cpu(),
    }[kind]  # fmt: skip
    got = flurka_numba.attention(**arrays, feature_map=phi)
    right = case.wanted_vjp({**case.arrays(), "omega": omega.cpu().numpy()})[0]
    assert np.abs(got.float().cpu().numpy() - right).max() <= 0.02 * np.abs(right).max()


def test_omega_as_bfloat16_is_refused():
    arrays = torch_arrays(LONG.but(feature_map="rfa"))[1]
    arrays["omega"] = arrays["omega"].bfloat16()
    with pytest.raises(ArgumentTypeError, match=r"omega wanted as one of float32, float64, float16 on a GPU, got bfl"):
        flurka_numba.attention(**arrays, feature_map="rfa")


@pytest.mark.parametrize("phi", RANDOM)
def test_a_graph_reads_omega_anew(phi):
    torch, arrays = torch_arrays(LONG.but(feature_map=phi, rows=64))
    flurka_numba.attention(**arrays, feature_map=phi)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flurka_numba.attention(**arrays, feature_map=phi)
    arrays["omega"].mul_(0.5)
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, flurka_numba.attention(**arrays, feature_map=phi))


def test_nothing_is_written_around_out():
    torch, arrays = torch_arrays(LONG.but(seq_q=777))
    buffer = torch.full((2, 4, 779, 64), 7.0, device="cuda", dtype=torch.bfloat16)
    flurka_numba.attention(**arrays, out=buffer[:, :, 1:-1])
    assert bool((buffer[:, :, [0, -1]] == 7).all())
    assert bool(torch.isfinite(buffer).all())


def test_a_graph_replays_new_values_while_its_stream_goes_on():
    case = LONG.but(method="kernel", seq_kv=9000)
    torch, arrays = torch_arrays(case)
    first = flurka_numba.kernel_attention(**arrays)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = flurka_numba.kernel_attention(**arrays)
    arrays["v"].mul_(2)
    graph.replay()
    again = flurka_numba.kernel_attention(**arrays)
    torch.cuda.synchronize()
    assert torch.equal(out, again)
    assert not torch.equal(out, first)


@pytest.mark.parametrize(("method", "phi"), [("flurka", "elu"), ("flurka", "favor"), ("kernel", "elu")])
def test_launches_overlap_within_a_call_only(method, phi):
    """Between calls that nobody waits for, arrays change on the stream; each result is that of a call alone."""
    case = LONG.but(method=method, feature_map=phi, rows=64)
    torch, arrays = torch_arrays(case)
    call = {"flurka": flurka_numba.attention, "kernel": flurka_numba.kernel_attention}[method]
    first = {name: one.clone() for name, one in arrays.items()}

    def run(*, waiting):
        for name, one in arrays.items():
            one.copy_(first[name])
        out, results = torch.empty_like(arrays["v"][:, :, :1].expand(-1, -1, case.seq_q, -1)), []
        for number in range(20):
            call(**arrays, feature_map=phi, out=out)
            results.append(out.clone())
            arrays["q"].add_(0.01 * number)
            arrays["k"].mul_(-1)
            arrays["v"].add_(0.1)
            if waiting:
                torch.cuda.synchronize()
        torch.cuda.synchronize()
        return results

    alone = run(waiting=True)
    assert all(torch.equal(a, b) for a, b in zip(alone, run(waiting=False), strict=True))
    assert not torch.equal(alone[0], alone[-1])


def test_cupy_and_jax_arrays():
    cupy = pytest.importorskip("cupy")
    case = LONG.but(dtype="float16")
    arrays = {name: cupy.asarray(one) for name, one in case.arrays().items()}
    got = flurka_numba.attention(**arrays)
    assert isinstance(got, cupy.ndarray)
    right = wanted(case)
    assert np.abs(cupy.asnumpy(got) - right).max() <= 0.01 * np.abs(right).max()
    jax = pytest.importorskip("jax")
    arrays = {name: jax.numpy.asarray(one) for name, one in case.arrays().items()}
    assert np.abs(np.asarray(flurka_numba.attention(**arrays)) - right).max() <= 0.01 * np.abs(right).max()


@pytest.mark.parametrize("method", ["flurka", "kernel"])
@pytest.mark.parametrize("batch", [1, 2])
def test_gradients_agree_with_the_oracle(method, batch):
    case = LONG.but(method=method, batch=batch, seq_q=700, seq_kv=900, heads=2)
    _, arrays = torch_arrays(case, "bshd")
    torch = pytest.importorskip("torch")
    name = {"flurka": "attention_vjp", "kernel": "kernel_attention_vjp"}[method]
    out, vjp = getattr(flurka_numba, name)(**arrays)
    dout = torch.from_numpy(case.dout().astype(np.float32)).cuda().to(out.dtype)
    first, second = vjp(dout), vjp(dout)
    right_out, pull = case.wanted_vjp()
    for got, again, right in zip((out, *first), (out, *second), (right_out, *pull(case.dout())), strict=True):
        if got is None:
            assert right is None
            continue
        assert torch.equal(got, again)  # deterministic
        assert np.abs(got.float().cpu().numpy() - right).max() <= 0.03 * np.abs(right).max()
