"""`compile`: one kernel object for many calls; what it serves, what it refuses, what it tells about itself."""

import copy
import html
import pickle
import signal
import threading
import time
import weakref
from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from splat_numba.api import attention, compile, plan
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError, CompileError, PatternError
from splat_numba.executors.cpu.executor import CPU
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.geometry import geometry
from splat_numba.formats.patterns import causal, dilated, documents, global_tokens, window
from splat_numba.kernel import Kernel, Part
from splat_numba.testing import Problem, check_attention
from tests.ops.attention_cases import MIXED, assert_same

SHAPE = {"seq_q": 70, "seq_kv": 70, "head_dim": 16, "dtype": "float32"}


def served(kernel):
    """The kernel as an implementation for check_attention; mask, scale and layout are its own."""
    return lambda q, k, v, _mask, *, return_lse, kv_lengths=None, **_: kernel(
        q, k, v, return_lse=return_lse, kv_lengths=kv_lengths
    )


@pytest.fixture(scope="module")
def mixed():
    return compile(MIXED, **SHAPE)


@pytest.fixture(scope="module")
def stored():
    return compile(ACSR.from_pattern(MIXED, 70, 70), **SHAPE)


def test_a_closed_form_serves_every_length_from_0_to_130(mixed):
    for length in range(131):
        other = (length * 37) % 131
        check_attention(Problem(length, length, MIXED, seed=length), attention=served(mixed))
        check_attention(Problem(length, other, MIXED, seed=length), attention=served(mixed))


def test_other_batch_and_head_counts(mixed, stored):
    for batch, heads_q, heads_kv in [(None, None, None), (None, 3, 3), (1, 1, 1), (3, 4, 2), (2, 6, 1), (0, 2, 2)]:
        problem = Problem(70, 70, MIXED, batch=batch, heads_q=heads_q, heads_kv=heads_kv)
        check_attention(problem, attention=served(mixed))
        check_attention(problem, attention=served(stored))


def test_kv_lengths_and_out(mixed):
    problem = Problem(70, 70, MIXED, batch=2, heads_q=2, kv_lengths=(0, 41))
    check_attention(problem, attention=served(mixed))
    q, k, v = problem.arrays()
    out = np.empty_like(q)
    assert mixed(q, k, v, out=out) is out
    assert_same(out, attention(q, k, v, MIXED))


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="signals go to the process here")
@pytest.mark.skipif(
    threading.current_thread() is not threading.main_thread(), reason="interrupts reach the main thread"
)
def test_an_interrupt_stops_a_long_call_and_nothing_is_written_afterwards(mixed, rng):
    q = rng.standard_normal((1, 4, 20_000, 16), np.float32)  # 57 million pairs a head: a second
    out, main = np.full_like(q, np.nan), threading.main_thread().ident

    def interrupt():
        while np.isnan(out[0, 0, 0, 0]):
            time.sleep(0.001)
        signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    watcher = threading.Thread(target=interrupt)
    try:
        watcher.start()
        with pytest.raises(KeyboardInterrupt):
            mixed(q, q, q, out=out)
    finally:
        watcher.join()
        signal.signal(signal.SIGINT, before)
    left = out.copy()
    time.sleep(0.05)
    assert np.array_equal(out, left, equal_nan=True)
    assert not np.array_equal(mixed(q, q, q), left)  # it was not finished


def test_scale_and_layout_belong_to_the_kernel():
    kernel = compile(MIXED, **SHAPE, heads_q=2, scale=0.5, layout="bshd")
    assert (kernel.scale, kernel.layout) == (0.5, "bshd")
    check_attention(Problem(70, 70, MIXED, batch=2, heads_q=2, scale=0.5, layout="bshd"), attention=served(kernel))


def test_a_list_of_masks_gives_every_head_its_own():
    masks = [MIXED, ACSR.from_pattern(MIXED, 70, 70), causal(), MIXED]
    kernel = compile(masks, **SHAPE, heads_q=4, heads_kv=2)
    assert [part.heads for part in kernel.parts] == [(0, 3), (1,), (2,)]
    check_attention(Problem(70, 70, masks, batch=2, heads_q=4, heads_kv=2), attention=served(kernel))
    q = np.zeros((1, 2, 70, 16), np.float32)
    with pytest.raises(ArgumentError) as caught:
        kernel(q, q, q)
    assert str(caught.value) == "q wanted with heads 4, as compiled for, got 2. Compile another kernel."


def test_a_list_of_closed_forms_serves_every_length():
    kernel = compile([MIXED, causal()], **SHAPE, heads_q=2)
    for lengths in [(70, 70), (1, 33), (129, 64)]:
        check_attention(Problem(*lengths, [MIXED, causal()], batch=1, heads_q=2), attention=served(kernel))


@pytest.mark.parametrize(
    ("masks", "numbers"),
    [
        ([window(width, 2 * width + 1) for width in range(3, 27, 3)], "left = 24, right = 49"),
        ([dilated(step + 2, step) for step in range(2, 10)], "step = 9, reach = 99"),
    ],
    ids=["windows", "dilations"],
)
def test_masks_of_one_form_one_a_head_share_one_text_and_one_compile(masks, numbers):
    kernel = compile(masks, **SHAPE, heads_q=8)
    assert len({id(part.compiled.code) for part in kernel.parts}) == 1
    assert len(kernel.backward_sources) == 1
    for lengths in [(70, 70), (33, 90)]:
        check_attention(Problem(*lengths, masks, batch=2, heads_q=8), attention=served(kernel))
    assert numbers in kernel.explain()


def test_a_kernel_tells_what_it_is(mixed, stored):
    for kernel in (mixed, stored):
        assert kernel.path.read_text(encoding="utf-8") == kernel.source
        assert "def pass_0(" in kernel.source
        assert kernel.plan.explain() == kernel.explain()
        assert kernel.resources["cached"] in ([True], [False])
    assert mixed.plan == plan(MIXED, **SHAPE)
    assert repr(MIXED) in mixed.explain()
    assert repr(MIXED) not in mixed.source  # which other numbers share
    assert mixed.plan.closed
    assert not stored.plan.closed
    with pytest.raises(FrozenInstanceError):
        mixed.scale = 1.0


def test_explain_of_several_masks_has_every_plan():
    kernel = compile([MIXED, causal()], **SHAPE, heads_q=2)
    text = kernel.explain()
    assert f"mask        {MIXED!r}" in text
    assert f"mask        {causal()!r}" in text


@pytest.mark.parametrize("change", [{"seq_q": 71}, {"seq_kv": 69}, {"seq_q": 0}])
def test_a_stored_mask_serves_its_own_lengths_only(stored, change):
    lengths = {"seq_q": 70, "seq_kv": 70} | change
    q, k, v = Problem(**lengths, mask=causal()).arrays()
    with pytest.raises(ArgumentError) as caught:
        stored(q, k, v)
    assert str(caught.value) == (
        f"q and k wanted with lengths (70, 70), as compiled for, got {tuple(lengths.values())}. Compile another kernel."
    )


def test_a_pattern_without_closed_form_serves_its_own_lengths_only():
    kernel = compile(documents((30, 40)), **SHAPE)
    check_attention(Problem(70, 70, documents((30, 40))), attention=served(kernel))
    q, k, v = Problem(71, 71, causal()).arrays()
    with pytest.raises(ArgumentError, match=r"^q and k wanted with lengths \(70, 70\)"):
        kernel(q, k, v)


@pytest.mark.parametrize(
    ("dims", "dtype", "message"),
    [
        ((17, 17), "float32", "q wanted with head_dim 16, as compiled for, got 17. Compile another kernel."),
        ((16, 5), "float32", "v wanted with value_dim 16, as compiled for, got 5. Compile another kernel."),
        ((16, 16), "float64", "q wanted with dtype float32, as compiled for, got float64. Compile another kernel."),
    ],
)
def test_other_dims_and_dtypes_are_refused(mixed, dims, dtype, message):
    q, k, v = Problem(8, 8, causal(), dtype, head_dim=dims[0], value_dim=dims[1]).arrays()
    with pytest.raises(ArgumentError) as caught:
        mixed(q, k, v)
    assert str(caught.value) == message


def test_lengths_that_do_not_fit_the_pattern_are_refused_at_the_call():
    mask = global_tokens((0, 33))
    decided = plan(mask, **SHAPE)
    assert decided.closed
    kernel = Kernel((Part(mask, None, decided, None),), decided.problem, 1.0, "bhsd", CPU)  # it is not going to run
    q, k, v = Problem(33, 33, causal()).arrays()
    with pytest.raises(PatternError, match="indices"):
        kernel(q, k, v)


@pytest.mark.parametrize(
    ("change", "error", "start"),
    [
        ({"seq_q": -1}, ArgumentError, "seq_q"),
        ({"seq_kv": 2.0}, ArgumentTypeError, "seq_kv"),
        ({"head_dim": True}, ArgumentTypeError, "head_dim"),
        ({"heads_q": 3, "heads_kv": 2}, ArgumentError, "k wanted with a number of heads"),
        ({"dtype": np.int8}, ArgumentTypeError, "dtype"),
        ({"layout": "hsbd"}, ArgumentError, "layout"),
        ({"scale": float("inf")}, ArgumentError, "scale"),
        ({"scale": 2.4e38}, ArgumentError, "scale"),  # float32 holds it, but not in base 2
        ({"backend": "tpu"}, BackendError, "backend"),
        ({"target": "sm90"}, BackendError, "target"),
    ],
)
def test_what_cannot_be_compiled_is_refused_before_it_is(change, error, start, monkeypatch):
    monkeypatch.delattr("splat_numba.runtime.cpu.code.compile_source")
    with pytest.raises(error, match=f"^{start}"):
        compile(causal(), **(SHAPE | change))


def test_numpy_integers_and_dtypes_are_taken(mixed):
    sizes = {name: np.int32(size) for name, size in SHAPE.items() if name != "dtype"}
    for dtype in (np.float32, np.dtype(np.float32), "float32"):
        assert compile(MIXED, **sizes, dtype=dtype).source == mixed.source


def test_a_pickle_holds_the_recipe_and_copies_are_the_kernel_itself(mixed, stored, tmp_path, rng):
    edited = tmp_path / "mine.py"
    edited.write_text(stored.source.replace("real(1.0) / weight", "real(2.0) / weight"), encoding="utf-8")
    several = compile([MIXED, ACSR.from_pattern(MIXED, 70, 70)], **SHAPE, heads_q=2, scale=0.5, layout="bshd")
    q, k, v = (rng.standard_normal((70, 2, 16)).astype(np.float32) for _ in range(3))
    emulated = compile(causal(), **(SHAPE | {"dtype": "float16"}), backend="emulate")
    assert repr(pickle.loads(pickle.dumps(emulated))) == repr(emulated)  # noqa: S301
    for kernel in (mixed, stored, stored.with_source(edited), several):
        data = pickle.dumps(kernel)
        again = pickle.loads(data)  # noqa: S301  # our own bytes
        assert len(data) < 20_000 or kernel.edited  # no text unless it is the user's, no tables, no machine code
        assert repr(again) == repr(kernel)
        assert again.source == kernel.source
        assert again.resources.keys() == kernel.resources.keys()
        assert copy.copy(kernel) is copy.deepcopy(kernel) is kernel
        arrays = (q, k, v) if kernel is several else (q[:, 0], k[:, 0], v[:, 0])
        assert np.array_equal(again(*arrays), kernel(*arrays))


def test_a_kernel_is_a_key_and_may_be_referred_to_weakly(mixed):
    """Dictionaries want both, and so does jax.jit(kernel) before it can be told that JAX sees no kernels."""
    assert {mixed: 1}[mixed] == 1
    assert weakref.ref(mixed)() is mixed


def test_a_notebook_shows_the_plan_and_where_the_text_is(mixed, stored):
    for kernel in (mixed, stored):
        shown = kernel._repr_html_()
        assert "<svg" in shown
        assert kernel.path.name in shown
        assert html.escape(repr(kernel)) in shown


def test_everything_public_is_shown_in_one_short_line(mixed, stored):
    several = compile([MIXED, causal()], **SHAPE, heads_q=2)
    assert repr(mixed) == "<Kernel cpu: window(5, 3) | strided(7) | sinks(2), 70 x 70, head_dim 16, float32>"
    assert repr(several).endswith("float32 and 1 more masks>")
    table = next(one.table for one in stored.plan.passes)
    bands = geometry(MIXED, 70, 70)
    many = plan(documents((1,) * 10_000), **(SHAPE | {"seq_q": 10_000, "seq_kv": 10_000}))
    for one in (mixed, several, stored.plan, many, *several.parts, table, bands, bands.table, bands.bands[0],
                stored.parts[0].mask, stored.parts[0].mask.runs):  # fmt: skip
        assert len(repr(one)) <= 250
        assert "\n" not in repr(one)


def test_an_edited_text_runs_through_the_same_launcher(stored, tmp_path, rng):
    """Doubling the normaliser in a copy of the generated file doubles the result; the kernel itself is unchanged."""
    q, k, v = (rng.standard_normal((70, 16)).astype(np.float32) for _ in range(3))
    edited = tmp_path / "mine.py"
    edited.write_text(stored.source.replace("real(1.0) / weight", "real(2.0) / weight"), encoding="utf-8")
    np.testing.assert_allclose(stored.with_source(edited)(q, k, v), 2 * stored(q, k, v), rtol=1e-6)
    with pytest.raises(ArgumentError, match="kernel wanted with one mask, got 2"):
        Kernel((*stored.parts, *stored.parts), stored.problem, stored.scale, stored.layout, CPU).with_source(edited)


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        (
            None,
            ArgumentError,
            "path wanted as a file that can be read, got {path}: No such file or directory. Write it",
        ),
        ("def pass_0(:\n", CompileError, "path {path}: line 1 is no Python: invalid syntax. Mend it."),
        ("x = '\0'\n", CompileError, "path {path}: it is no Python: source code "),
        (
            "x = 1\n",
            CompileError,
            "path {path}: function pass_0 wanted, which is what is called, got none. Put it back.",
        ),
        ("\udcff", CompileError, "path {path}: wanted as Python in UTF-8, got "),
        (
            "from numba import njit\n@njit\ndef pass_0(*_):\n    return missing\n",
            CompileError,
            "path {path} does not compile: ",
        ),
    ],
)
def test_an_edited_text_that_cannot_run_is_refused_and_its_file_named(stored, tmp_path, text, error, message):
    path = tmp_path / "mine.py"
    if text is not None:
        path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(error) as caught:
        stored.with_source(path)
    assert str(caught.value).startswith(message.format(path=path))
    assert str(caught.value).count(str(path)) == 1


def test_a_file_with_a_long_name_runs(stored, tmp_path):
    path = tmp_path / f"{'long' * 60}.py"
    path.write_text(stored.source, encoding="utf-8")
    assert len(stored.with_source(path).path.name) < 100
    with pytest.raises(ArgumentTypeError, match=r"^path wanted as a file's name, got int\. Give a string\.$"):
        stored.with_source(3)


def test_a_sink_with_a_learned_logit_follows_from_the_lse(stored):
    """As README says: a key of score ``sink`` and value 0 in every row, rows that attend to nothing included."""
    problem = Problem(70, 70, ACSR.from_pattern(MIXED, 70, 70), batch=1, heads_q=2)
    q, k, v = problem.arrays()
    out, lse = stored(q, k, v, return_lse=True)
    sink = np.array([[0.5], [-1.0]], np.float32)
    got = out / (1 + np.exp(sink - lse))[..., None]
    scores = np.where(problem.dense_mask(), np.einsum("bhid,bhjd->bhij", q, k, dtype=np.float64) / 4, -np.inf)
    weights = np.exp(scores)
    wanted = weights @ v / (weights.sum(axis=-1) + np.exp(sink))[..., None]
    np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)
