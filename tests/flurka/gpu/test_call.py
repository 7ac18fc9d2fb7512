"""From a call to the launches of its stages, with a driver that only notes what it is asked: no GPU, no kernel."""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import numpy as np
import pytest

import flurka_numba
from flurka_numba.gpu import call as gpu_call
from flurka_numba.gpu.plan import forward_plan
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.runtime.cuda import frameworks, ready
from splat_numba.runtime.recent import Recent
from tests.flurka.gpu.fake_stages import fake, fresh, strides_of
from tests.runtime.fake_cuda import GpuMemory
from tests.runtime.fake_torch import ODD_TENSORS, Tensor, torch

BATCH, HEADS, SEQ_Q, SEQ_KV, RANK, DIM = 2, 4, 300, 1000, 100, 64
ROW = 2 * HEADS * DIM  # bytes of a token of all heads
PLACES = {name: (number + 1) << 28 for number, name in enumerate(("q", "k", "v", "proj_k", "proj_v", "out"))}
FIRST, SECOND, THIRD = ((1 << 34) + (number << 24) for number in range(3))  # what the fixture ``fresh`` gives


def tokens(name, seq, dim=DIM, place=None, **more):
    """(batch, heads, seq, dim), stored as (batch, seq, heads, dim)."""
    row = 2 * HEADS * dim
    strides = (seq * row, 2 * dim, row, 2)
    return GpuMemory((BATCH, HEADS, seq, dim), pointer=place or PLACES[name], strides=strides, **more)


def operands(method="flurka", dim=DIM, **places):
    """The arrays of a call. places: where some of them are, instead of the usual ones."""
    found = {name: tokens(name, SEQ_Q if name == "q" else SEQ_KV, dim, places.get(name)) for name in "qkv"}
    if method != "kernel":
        for name in ("proj_k", "proj_v"):
            found[name] = GpuMemory((RANK, SEQ_KV), pointer=places.get(name, PLACES[name]))
    return found


def run(method="flurka", **given):
    name = {"flurka": "attention"}.get(method, f"{method}_attention")
    return getattr(flurka_numba, name)(**given, backend="cuda")


def map_places(fake):
    """Where the arrays of the tensor maps are, in the order in which those were encoded."""
    return [encoded[2] for encoded in fake.maps]


def test_three_launches(fake, fresh):
    out = run(**operands())
    first, second, third = fake.launches
    assert [one.stage for one in fake.launches] == ["compress", "slot_state", "apply"]
    plan = forward_plan(next(iter(gpu_call._ready._kept.values())).problem, 132)
    assert [one.grid for one in fake.launches] == [stage.grid for stage in plan.stages]
    assert out is fresh[0]
    assert out.shape == (BATCH, HEADS, SEQ_Q, DIM)
    assert map_places(fake) == [PLACES[name] for name in ("k", "v", "proj_k", "proj_v")]
    assert [getattr(first, f"{name}_map") - first.k_map for name in ("k", "v", "proj_k", "proj_v")] == [
        0,
        128,
        256,
        384,
    ]
    assert np.frombuffer(fake.memory[first.k_map], np.uint64).tolist() == [n for n in range(1, 5) for _ in range(16)]
    assert (first.kv_lengths, first.seq_kv) == (0, SEQ_KV)
    assert (second.heads, second.slots) == (HEADS, RANK)
    assert (third.q, third.out) == (PLACES["q"], FIRST)
    assert (third.q_row, third.q_head, third.q_batch) == (ROW, 2 * DIM, SEQ_Q * ROW)
    assert (third.out_row, third.out_head, third.out_batch) == (2 * DIM, SEQ_Q * 2 * DIM, HEADS * SEQ_Q * 2 * DIM)
    assert fake.contexts == [0]  # as it was


def test_what_lies_between_stages_is_one_allocation(fake, fresh):
    run(**operands())
    first, second, third = fake.launches
    _, workspace = fresh
    assert first.parts == second.parts == SECOND
    assert second.states == third.states
    plan = forward_plan(next(iter(gpu_call._ready._kept.values())).problem, 132)
    assert second.states >= second.parts + plan.parts
    assert SECOND + workspace.shape[0] >= second.states + plan.states
    assert (second.shares, plan.shares) == (0, 0)  # one block a state: nothing is added up
    assert not (second.parts | second.states) % 256


def test_kernel_attention_reads_tokens_by_address(fake, fresh):
    run("kernel", **operands("kernel"))
    first = fake.launches[0]
    assert [one.stage for one in fake.launches] == ["accumulate", "images", "apply"]
    assert (first.k, first.v, first.k_row, first.v_batch) == (PLACES["k"], PLACES["v"], ROW, SEQ_KV * ROW)
    assert not fake.maps


def test_one_projection_for_both(fake, fresh):
    given = operands()
    del given["proj_v"]
    run(**given)
    assert map_places(fake)[2:] == [PLACES["proj_k"]] * 2


@pytest.mark.parametrize("method", ["flurka", "kernel"])
def test_a_call_like_an_earlier_one_only_launches(fake, fresh, method):
    run(method, **operands(method))
    planned, known, maps = len(fake.planned), len(fake.memory), len(fake.maps)
    out = run(method, **operands(method))
    assert (len(fake.planned), len(fake.memory), len(fake.maps)) == (planned, known, maps)
    half = len(fake.launches) // 2
    before, after = fake.launches[half - 1], fake.launches[-1]
    assert (before.q, after.q) == (PLACES["q"], PLACES["q"])
    assert (before.out, after.out, out) == (FIRST, THIRD, fresh[2])
    run(method, **operands(method, q=99 << 28))
    assert len(fake.maps) == maps
    run(method, **operands(method, k=77 << 28))  # keys elsewhere need other maps, and nothing else
    assert (len(fake.planned), len(fake.maps)) == (planned, 2 * maps)
    assert fake.launches[-1].q == PLACES["q"]


def test_options_are_told_apart(fake, fresh):
    for options in ({}, {"feature_map": "relu"}, {"feature_map": "relu", "eps": 0.5}, {"kv_lengths": [1, 2]}):
        before = len(fake.planned)
        run(**operands(), **options)
        assert len(fake.planned) > before


def test_out_is_written_in_place_and_found_again(fake, fresh):
    out = tokens("out", SEQ_Q)
    for _ in range(2):
        assert run(**operands(), out=out) is out
    assert len(fake.planned) == 3
    assert [one.out for one in fake.launches if one.stage == "apply"] == [PLACES["out"]] * 2
    assert (fake.launches[2].out_row, fake.launches[2].out_head) == (ROW, 2 * DIM)
    assert len(fresh) == 2  # a workspace each


@pytest.mark.parametrize("name", ["q", "k", "proj_v"])
def test_an_out_over_an_input_is_refused_at_every_call(fake, fresh, name):
    run(**operands(), out=tokens("out", SEQ_Q))
    for _ in range(2):
        with pytest.raises(ArgumentError, match=rf"^out wanted apart from the inputs, got memory that {name} uses"):
            run(**operands(), out=tokens("out", SEQ_Q, place=PLACES[name] + 512))


def test_an_out_between_the_rows_of_an_input_is_not(fake, fresh):
    wide = 2 * SEQ_Q * 128
    strides = (HEADS * wide, wide, 256, 2)
    q, out = (GpuMemory((BATCH, HEADS, SEQ_Q, DIM), pointer=(1 << 28) + half, strides=strides) for half in (0, 128))
    for _ in range(2):
        run(**(operands() | {"q": q}), out=out)
    assert fake.launches[-1].out == (1 << 28) + 128
    assert len(fake.planned) == 3


def test_misaligned_arrays_are_copied_once(fake, fresh):
    given = operands(k=PLACES["k"] + 2, proj_k=PLACES["proj_k"] + 8)
    del given["proj_v"]  # one projection for both
    run(**given)
    keys, projection = fake.copies
    assert [one.source for one in fake.copies] == [PLACES["k"] + 2, PLACES["proj_k"] + 8]
    assert strides_of(keys, "target") == (HEADS * SEQ_KV * 128, SEQ_KV * 128, 128, 2)
    assert strides_of(keys, "source") == (SEQ_KV * ROW, 128, ROW, 2)
    assert map_places(fake) == [keys.target, PLACES["v"], projection.target, projection.target]
    (apply,) = (one for one in fake.launches if one.stage == "apply")
    assert (apply.q, apply.q_row, apply.out) == (PLACES["q"], ROW, FIRST)  # in place, all the same
    run(**given)
    assert len(fake.planned) == 3


def test_rows_that_end_anywhere_are_copied_and_out_is_staged(fake, fresh):
    run("kernel", **operands("kernel", dim=63))
    k, v, q, out = fake.copies
    assert [one.source for one in (q, k, v)] == [PLACES[name] for name in "qkv"]
    assert strides_of(q, "target") == (HEADS * SEQ_Q * 128, SEQ_Q * 128, 128, 2)
    accumulate, _, apply = fake.launches
    assert (accumulate.k, accumulate.k_row) == (k.target, 128)
    assert (apply.q, apply.out_row) == (q.target, 128)
    assert (out.target, out.source) == (FIRST, apply.out)
    assert strides_of(out, "target") == (HEADS * SEQ_Q * 126, SEQ_Q * 126, 126, 2)


def test_a_misaligned_out_is_staged(fake, fresh):
    run(**operands(), out=tokens("out", SEQ_Q, place=PLACES["out"] + 2))
    (copy,) = fake.copies
    assert (copy.target, copy.source) == (PLACES["out"] + 2, FIRST)
    assert strides_of(copy, "target") == (SEQ_Q * ROW, 128, ROW, 2)
    assert fake.launches[-1].out == FIRST


def test_low_rank_attention_is_one_schedule(fake, fresh):
    for _ in range(2):
        run("low_rank", **operands("low_rank"))
    compress, collect, attention, restore = fake.launches[:4]
    assert [one.stage for one in fake.launches] == 2 * ["compress", "collect", "attention", "restore"]
    assert compress.parts == collect.parts
    assert (attention.out, restore.out) == (FIRST, FIRST)
    assert collect.slot_scales == restore.slot_scales
    assert map_places(fake)[5:7] == [collect.k_slots, collect.v_slots]  # behind four of compress, and that of q
    assert len(fake.planned) == 4


def test_counters_belong_to_a_stream_or_a_graph(fake, fresh, monkeypatch):
    streams = iter([5, 6, 5, 5, 5])
    monkeypatch.setattr(type(frameworks.NUMBA), "stream", lambda *_: next(streams))
    for _ in range(3):
        run(**operands())
    assert not ready._captured
    fake.capturing = True
    for _ in range(2):
        run(**operands())
    states = [one for one in fake.launches if one.stage == "slot_state"]
    assert [one.stream for one in states] == [5, 6, 5, 5, 5]
    first, second, again, *captured = (one.counters for one in states)
    assert again == first
    assert len({first, second, *captured}) == 4  # a graph may run beside its stream
    assert not any(fake.memory[first])
    assert len(ready._captured) == 1
    fake.capturing = False


def test_a_capture_pins_its_tensor_maps(fake, fresh):
    run(**operands())
    fake.capturing = True
    run(**operands())
    fake.capturing = False
    (kept,) = ready._captured
    assert [slot.pinned for slot in kept._pool._used.values()] == [True]


def test_key_lengths_of_the_host(fake, fresh):
    for lengths in ([0, SEQ_KV], np.array([0, SEQ_KV])):
        run(**operands(), kv_lengths=lengths)
    first, again = (one.kv_lengths for one in fake.launches if one.stage == "compress")
    assert first == again
    assert np.frombuffer(fake.memory[first], np.int32).tolist() == [0, SEQ_KV]
    with pytest.raises(ArgumentError, match=rf"^kv_lengths wanted between 0 and seq_kv = {SEQ_KV}"):
        run(**operands(), kv_lengths=[0, SEQ_KV + 1])


def test_key_lengths_of_the_device(fake, fresh):
    run("kernel", **operands("kernel"), kv_lengths=GpuMemory((BATCH,), "int32", pointer=9 << 28))
    assert fake.launches[0].kv_lengths == 9 << 28
    run("kernel", **operands("kernel"), kv_lengths=GpuMemory((BATCH,), "int64", pointer=9 << 28))
    (copy,) = fake.copies
    assert (copy.source, copy.source_column, copy.dim, copy.rows) == (9 << 28, 8, BATCH, 1)
    assert fake.launches[3].kv_lengths == copy.target
    with pytest.raises(ArgumentTypeError, match=r"^kv_lengths wanted as integers, got float16"):
        run("kernel", **operands("kernel"), kv_lengths=GpuMemory((BATCH,), "float16"))
    with pytest.raises(ArgumentError, match=r"^kv_lengths wanted of shape \(2,\), got \(3,\)"):
        run("kernel", **operands("kernel"), kv_lengths=GpuMemory((3,), "int32"))


def test_numpy_arrays_are_copied_there_and_back(fake):
    shapes = {"q": (2, 10, 12), "k": (2, 30, 12), "v": (2, 30, 24), "proj_k": (5, 30)}
    given = {name: np.full(shape, number, np.float16) for number, (name, shape) in enumerate(shapes.items())}
    out = np.ones((2, 10, 24), np.float16)
    assert run(**given, out=out) is out
    assert not out.any()  # nothing was written on the device
    assert {one.stream for one in fake.launches} == {555}
    k, _, proj_k, _ = (fake.memory[place] for place in map_places(fake))
    assert (np.frombuffer(k, np.float16).reshape(2, 30, 16)[..., :12] == 1).all()
    assert (np.frombuffer(proj_k, np.float16).reshape(5, 32)[..., :30] == 3).all()
    run(**given, out=out)
    assert len(fake.planned) == 3


@pytest.mark.parametrize("sizes", [(0, 4, 8), (2, 0, 8), (2, 4, 0)])
def test_nothing_is_launched_for_an_empty_result(fake, fresh, sizes):
    arrays = [GpuMemory((*sizes[:2], seq, DIM), pointer=1 << 28) for seq in (sizes[2], 8, 8)]
    assert run("kernel", q=arrays[0], k=arrays[1], v=arrays[2]).shape == (*sizes, DIM)
    assert not fake.launches


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"k": np.zeros((BATCH, HEADS, SEQ_KV, DIM), np.float16)}, BackendError,
         "k wanted in GPU memory for backend 'cuda', got a NumPy array. Copy it there, or give q, k and v as NumPy "
         "arrays, which are copied there and back."),
        ({"q": np.zeros((BATCH, HEADS, SEQ_Q, DIM), np.float16)}, ArgumentTypeError,
         "k wanted in CPU memory as q is, got a GPU array. Copy one of them."),
        ({"proj_v": GpuMemory((RANK, SEQ_KV), pointer=1 << 40)}, BackendError,
         "proj_v wanted on GPU 0 as q is, got one on GPU 1. Copy it there."),
        ({"v": GpuMemory((BATCH, HEADS, SEQ_KV, DIM), "float64", pointer=1 << 28)}, ArgumentTypeError,
         "v wanted as float16, bfloat16, float32 for backend 'cuda', got float64. Convert it, or give backend='cpu' "
         "with arrays there."),
        ({"v": GpuMemory((BATCH, HEADS, SEQ_KV, DIM), "float32", pointer=1 << 28)}, ArgumentTypeError,
         "v wanted as float16 as q is, got float32. Convert one of them."),
        ({"out": GpuMemory((BATCH, HEADS, SEQ_Q, 8), pointer=9 << 28)}, ArgumentError,
         f"out wanted of shape {(BATCH, HEADS, SEQ_Q, DIM)}, got {(BATCH, HEADS, SEQ_Q, 8)}. Give one of this shape."),
        ({"out": np.zeros((BATCH, HEADS, SEQ_Q, DIM), np.float16)}, BackendError,
         "out wanted in GPU memory for backend 'cuda', got a NumPy array. Copy it there, or give q, k and v as NumPy "
         "arrays, which are copied there and back."),
        ({"eps": [1.0]}, ArgumentTypeError, "eps wanted as a number, got list. Leave it out for the map's own."),
        ({"k": None}, BackendError,
         "k wanted in GPU memory for backend 'cuda', got one of type NoneType elsewhere. Copy it there, or give q, k "
         "and v as NumPy arrays, which are copied there and back."),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_at_every_call(fake, fresh, change, error, message):
    run(**operands())
    for _ in range(2):
        with pytest.raises(error) as caught:
            run(**(operands() | change))
        assert str(caught.value) == message


def test_the_longest_unused_call_is_forgotten(fake, fresh, monkeypatch):
    made, make = [], gpu_call._make_ready
    monkeypatch.setattr(gpu_call, "_make_ready", lambda call, *more: (made.append(call.eps), make(call, *more))[1])
    monkeypatch.setattr(gpu_call, "_ready", Recent(2))
    for eps in (0.1, 0.2, 0.1, 0.3, 0.1, 0.2):
        run("kernel", **operands("kernel"), eps=eps)
    assert made == [0.1, 0.2, 0.3, 0.2]


@pytest.mark.parametrize("name", [name for name in ODD_TENSORS if name != "wants a gradient"])
def test_a_repeated_call_looks_at_its_tensors_anew(fake, torch, name):
    changes, start = ODD_TENSORS[name]

    def arrays(**odd):
        shapes = {"q": (SEQ_Q, DIM), "k": (SEQ_KV, DIM), "v": (SEQ_KV, DIM)}
        whole = {one: Tensor((BATCH, HEADS, *shape), PLACES[one], "torch.float16", 0) for one, shape in shapes.items()}
        return whole | {"proj_k": Tensor((RANK, SEQ_KV), PLACES["proj_k"], "torch.float16", 0, **odd)}

    run(**arrays())
    launched = len(fake.launches)
    with pytest.raises(ArgumentError) as caught:
        run(**arrays(**changes))
    assert str(caught.value).startswith(f"proj_k wanted {start}")
    assert len(fake.launches) == launched
    run(**arrays())
    assert len(fake.launches) == 2 * launched
