"""From a call to the driver's launch, with a driver that only notes what it is asked: no GPU, no kernel."""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import gc
import math
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import numpy as np
import pytest

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.executors.executor import Part
from splat_numba.executors.gpu import call as gpu_call
from splat_numba.executors.gpu.alike import Alike
from splat_numba.executors.gpu.call import attend
from splat_numba.executors.gpu.executor import CudaExecutor
from splat_numba.formats.patterns import causal
from splat_numba.gen.boxes.passes import BoxPass, BoxTable, Traits
from splat_numba.gen.schedules.tensor import padded
from splat_numba.gen.schedules.views import Box, View
from splat_numba.gen.targets.sm90 import schedule
from splat_numba.gen.targets.sm90.attention import COUNTS, PARAMETERS, POINTERS, STRIDES, attention_entry
from splat_numba.gen.targets.sm90.schedule import attention_text
from splat_numba.runtime.compile import compile_file
from splat_numba.runtime.cuda import ready
from tests.runtime.fake_cuda import FakeDriver, GpuMemory, fake, forget, fresh, install

HEADS, LENGTH, DIM = 4, 300, 64
SHAPE = (2, HEADS, LENGTH, DIM)
TRAITS = Traits(DIM, DIM, "float16", 2, 128, 2, 1)


def box_pass(resumes=False):
    whole = View(0, 1, LENGTH, LENGTH, 1)
    rows = np.pad(np.arange(LENGTH, dtype=np.int32), (0, 84), constant_values=-1).reshape(3, 128)
    block, piece = np.zeros((3, 8), np.int32), np.zeros((3, 8), np.int32)
    table = BoxTable((whole,), (whole, View(1, 2, 150, 1, 1)), rows, block, piece, np.zeros((1, 64, 4), np.uint32))
    return BoxPass(table, Box(128), Box(128), replace(TRAITS, resumes=resumes), "rows")


@dataclass
class Recipe:
    """A kernel for one stored pass, or several."""

    passes: tuple
    layout: str = "bhsd"
    scale: float | None = None
    heads: tuple | None = None
    ragged: bool | None = None
    asked: int = 0
    executor: CudaExecutor = field(default_factory=CudaExecutor)

    @property
    def identity(self):
        return (self,)

    def parts_for(self, problem, scale, settings, *, ragged):
        self.asked += 1
        self.ragged = ragged
        texts = tuple(attention_text(one.traits) for one in self.passes)
        plan = SimpleNamespace(passes=self.passes, target="sm_90a")
        return (Part(causal(), self.heads, plan, SimpleNamespace(texts=texts)),)


@pytest.fixture(autouse=True)
def clean(fake, monkeypatch):
    monkeypatch.setattr(gpu_call, "_ready", Alike(512))


def operands(shape=SHAPE, kv_heads=HEADS, **options):
    kv = (shape[0], kv_heads, *shape[2:])
    return [GpuMemory(one, pointer=(n + 1) << 28, **options) for n, one in enumerate((shape, kv, kv))]


def call(recipe, arrays, kv_lengths=None, out=None, return_lse=False):
    return attend(recipe, *arrays, kv_lengths, out, return_lse)


def test_one_launch(fake, fresh):
    recipe = Recipe((box_pass(),), scale=-0.5)
    out = call(recipe, operands(kv_heads=2))
    (one,) = fake.launches
    shared = attention_entry(TRAITS).shared_bytes
    assert out is fresh[0]
    assert out.shape == SHAPE
    assert (one.function, one.stream, one.shared, fake.shared) == (4242, 0, shared, shared)
    assert one.sizes == (min(3 * HEADS * 2, 132), 1, 1, 384, 1, 1)
    assert one.kv_maps == one.q_maps + 128
    assert np.frombuffer(fake.memory[one.q_maps], np.uint64).tolist() == [n for n in range(1, 6) for _ in range(16)]
    assert [encoded[2] for encoded in fake.maps] == [1 << 28, 2 << 28, 3 << 28, (2 << 28) + 128, (3 << 28) + 128]
    assert np.frombuffer(fake.memory[one.rows], np.int32).tolist()[:300] == list(range(300))
    assert np.frombuffer(fake.memory[one.views], np.int32).tolist() == [0, 1, 300, 0, 1, 2, 1, 0]
    assert np.frombuffer(fake.memory[one.heads], np.int32).tolist() == [0, 1, 2, 3]
    assert (one.out, one.lse, one.kv_lengths) == (1 << 34, 0, 0)
    assert one.scale_log2 == pytest.approx(0.5 * math.log2(math.e))
    assert (one.blocks, one.heads_count, one.heads_q, one.group, one.batch, one.seq_q) == (3, 4, 4, 2, 2, 300)
    assert (one.out_row, one.out_head, one.out_batch) == (128, 128 * 300, 128 * 300 * 4)
    assert fake.contexts == [0]  # as it was


def test_a_call_like_an_earlier_one_only_launches(fake, fresh):
    recipe, arrays = Recipe((box_pass(),)), operands()
    call(recipe, arrays)
    known, maps = len(fake.memory), len(fake.maps)
    call(recipe, arrays)
    assert recipe.asked == 1
    assert (len(fake.memory), len(fake.maps)) == (known, maps)
    assert len({one.counter for one in fake.launches}) == 1
    assert [one.out for one in fake.launches] == [1 << 34, (1 << 34) + (1 << 24)]
    other = [GpuMemory(SHAPE, pointer=(n + 11) << 28) for n in range(3)]
    call(recipe, other)  # other places need other maps, and nothing else
    assert recipe.asked == 1
    assert len(fake.maps) == 2 * maps


def test_the_code_that_launches_stays_when_others_are_let_go_of(fake, fresh):
    recipe, arrays = Recipe((box_pass(),)), operands()
    call(recipe, arrays)
    compile_file.cache_clear()
    gc.collect()
    call(recipe, arrays)
    call(recipe, [GpuMemory(SHAPE, pointer=(n + 11) << 28) for n in range(3)])
    assert len(fake.launches) == 3


def test_layout_missing_axes_and_results(fake, fresh):
    swapped = Recipe((box_pass(),), layout="bshd")
    out, lse = call(swapped, [GpuMemory((2, LENGTH, HEADS, DIM), pointer=(n + 1) << 28) for n in range(3)], None, None,
                    True)  # fmt: skip
    assert (out.shape, lse.shape) == ((2, LENGTH, HEADS, DIM), (2, HEADS, LENGTH))
    (one,) = fake.launches
    assert (one.out_row, one.out_head, one.out_batch) == (HEADS * 128, 128, LENGTH * HEADS * 128)
    assert one.lse == (1 << 34) + (1 << 24)
    out, lse = call(Recipe((box_pass(),)), [GpuMemory(SHAPE[2:], pointer=(n + 1) << 28) for n in range(3)], None, None,
                    True)  # fmt: skip
    assert (out.shape, lse.shape) == ((LENGTH, DIM), (LENGTH,))


def test_passes_run_in_turn_and_carry_lse_even_if_nobody_asked(fake, fresh):
    out = call(Recipe((box_pass(), box_pass(resumes=True)), heads=(1, 3)), operands())
    first, second = fake.launches
    assert out is fresh[0]
    assert second.q_maps == first.q_maps + 5 * 128
    assert first.lse == second.lse == (1 << 34) + (1 << 24)
    assert np.frombuffer(fake.memory[second.heads], np.int32).tolist() == [1, 3]


def test_key_lengths_of_the_host(fake, fresh):
    recipe, arrays = Recipe((box_pass(),)), operands()
    call(recipe, arrays, kv_lengths=[0, 300])
    call(recipe, arrays, kv_lengths=np.array([0, 300]))
    first, second = fake.launches
    assert recipe.ragged
    assert first.kv_lengths == second.kv_lengths
    assert np.frombuffer(fake.memory[first.kv_lengths], np.int32).tolist() == [0, 300]
    with pytest.raises(ArgumentError, match=r"^kv_lengths wanted between 0 and seq_kv = 300"):
        call(recipe, arrays, kv_lengths=[0, 301])


def test_key_lengths_of_the_device(fake, fresh):
    recipe, arrays = Recipe((box_pass(),)), operands()
    call(recipe, arrays, kv_lengths=GpuMemory((2,), "int32", pointer=7 << 28))
    assert fake.launches[0].kv_lengths == 7 << 28
    call(recipe, arrays, kv_lengths=GpuMemory((2,), "int64", pointer=7 << 28))
    (copy,) = fake.copies
    assert (copy.source, copy.source_column, copy.dim, copy.rows) == (7 << 28, 8, 2, 1)
    assert fake.launches[1].kv_lengths == copy.target
    call(recipe, arrays, kv_lengths=GpuMemory((2,), "int32", pointer=7 << 28, strides=(8,)))
    assert [(one.source_column, one.function == copy.function) for one in fake.copies] == [(8, True), (8, False)]
    with pytest.raises(ArgumentTypeError, match=r"^kv_lengths wanted as integers, got float16"):
        call(recipe, arrays, kv_lengths=GpuMemory((2,), "float16"))
    with pytest.raises(ArgumentError, match=r"^kv_lengths wanted of shape \(2,\), got \(3,\)"):
        call(recipe, arrays, kv_lengths=GpuMemory((3,), "int32"))


def test_out_is_written_in_place(fake):
    recipe, arrays = Recipe((box_pass(),)), operands()
    strides = (HEADS * LENGTH * 512, LENGTH * 512, -256, 2)
    out = GpuMemory(SHAPE, pointer=9 << 28, strides=strides)
    assert call(recipe, arrays, out=out) is out
    assert fake.launches[0].out == 9 << 28
    assert fake.launches[0].out_row == 2**64 - 256


@pytest.mark.parametrize("place", [2 << 28, (2 << 28) + 640])
def test_an_out_that_overlaps_is_refused_at_every_call(fake, place):
    recipe, arrays = Recipe((box_pass(),)), operands()
    call(recipe, arrays, out=GpuMemory(SHAPE, pointer=9 << 28))
    for _ in range(2):
        with pytest.raises(ArgumentError, match=r"^out wanted apart from the inputs, got memory that k uses"):
            call(recipe, arrays, out=GpuMemory(SHAPE, pointer=place))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        (GpuMemory((2, HEADS, LENGTH, 8)), f"out wanted of shape {SHAPE}, got (2, 4, 300, 8). Give one"
         " of this shape."),
        (GpuMemory(SHAPE, "float32"), "out wanted as float16 as q is, got float32. Give one of this "
         "dtype."),
        (np.zeros(SHAPE, np.float16), "out wanted in GPU memory for backend 'cuda', got a NumPy array. Copy it there, "
         "or give q, k and v as NumPy arrays, which are copied there and back."),
        (GpuMemory(SHAPE, pointer=1 << 40), "out wanted on GPU 0 as q is, got one on GPU 1. Copy it there."),
    ],
)  # fmt: skip
def test_an_out_that_does_not_fit_is_refused(fake, out, message):
    with pytest.raises((ArgumentError, BackendError)) as caught:
        call(Recipe((box_pass(),)), operands(), out=out)
    assert str(caught.value) == message


def test_what_cannot_be_read_or_written_in_place_is_copied(fake, fresh):
    shape = (1, 1, LENGTH, 63)
    q, k, v = (GpuMemory(shape, pointer=(n + 1) << 28) for n in range(3))
    call(Recipe((box_pass(),)), (q, k, v))
    _, scratch = fresh  # of four arrays: q, k, v and out
    rows = LENGTH * 128
    starts = [(1 << 34) + (1 << 24) + number * -(-rows // 256) * 256 for number in range(4)]
    assert scratch.shape == (starts[3] - starts[0] + -(-rows // 256) * 256,)
    assert [(one.target, one.source) for one in fake.copies] == [
        (starts[0], 1 << 28), (starts[1], 2 << 28), (starts[2], 3 << 28), (1 << 34, starts[3]),
    ]  # fmt: skip
    first = fake.copies[0]
    assert (first.target_row, first.target_column, first.source_row, first.source_column) == (128, 2, 126, 2)
    (one,) = fake.launches
    assert (one.out, one.out_row) == (starts[3], 128)


def test_a_head_broadcast_to_all_is_one_head_and_not_copied(fake, fresh):
    arrays = operands()
    strides = (LENGTH * 128, 0, 128, 2)
    for one in arrays[1:]:
        one.__cuda_array_interface__["strides"] = strides
    call(Recipe((box_pass(),)), arrays)
    assert not fake.copies
    assert fake.launches[0].group == HEADS


@pytest.mark.parametrize("shape", [(0, 2, 8, 64), (1, 0, 8, 64), (1, 2, 0, 64)])
def test_nothing_is_launched_for_an_empty_result(fake, fresh, shape):
    out, lse = call(Recipe((box_pass(),)), operands(shape, shape[1]), return_lse=True)
    assert (out.shape, lse.shape) == (shape, shape[:3])
    assert not fake.launches


def test_a_capture_pins_what_its_graph_may_read(fake, fresh):
    recipe, arrays = Recipe((box_pass(),)), operands()
    call(recipe, arrays)
    assert not ready._captured
    fake.capturing = True
    call(recipe, arrays)
    call(recipe, arrays)
    before, *captured = (one.counter for one in fake.launches)
    assert len({before, *captured}) == 3  # a graph may run beside its stream
    (kept,) = ready._captured
    assert [slot.pinned for slot in kept._pool._used.values()] == [True]


def test_numpy_arrays_are_copied_there_and_back(fake):
    q, k, v = (np.full((2, 10, 12), n, np.float16) for n in range(3))
    out = np.zeros_like(q)
    recipe = Recipe((replace(box_pass(), table=small_table()),))
    got, lse = attend(recipe, q, k, v, None, out, True)
    (one,) = fake.launches
    assert got is out
    assert lse.shape == (2, 10)
    assert lse.dtype == np.float32
    assert one.stream == 555
    sent = np.frombuffer(fake.memory[fake.maps[1][2]], np.float16).reshape(2, 10, 16)
    assert (sent[..., :12] == 1).all()


def small_table():
    whole = View(0, 1, 10, 10, 1)
    lines = np.zeros((1, 8), np.int32)
    return BoxTable((whole,), (whole,), np.zeros((1, 128), np.int32), lines, lines, np.zeros((0, 64, 4), np.uint32))


def test_what_is_not_on_one_device_is_refused(fake):
    q, k, v = operands()
    with pytest.raises(BackendError, match=r"^k wanted on GPU 0 as q is, got one on GPU 1\. Copy it there\.$"):
        call(Recipe(()), (q, GpuMemory(SHAPE, pointer=1 << 40), v))
    with pytest.raises(BackendError, match=r"^k wanted in GPU memory"):
        call(Recipe(()), (q, np.zeros(SHAPE, np.float16), v))
    with pytest.raises(ArgumentTypeError, match=r"^k wanted in CPU memory as q is, got a GPU array"):
        call(Recipe(()), (np.zeros(SHAPE, np.float16), k, v))


@pytest.mark.parametrize(
    ("gpu", "message"),
    [
        (
            FakeDriver(capability=(8, 6)),
            "backend 'cuda' wanted a GPU of compute capability 9.0 for these options, got NVIDIA Fake of 8.6. "
            "Copy the arrays to the CPU and give backend='cpu'.",
        ),
        (
            FakeDriver(count=0),
            "backend 'cuda' wanted an NVIDIA GPU, got a driver without any device. "
            "Run it where one is, or give backend='cpu'.",
        ),
    ],
)
def test_a_machine_that_cannot_run_it_is_refused(monkeypatch, gpu, message):
    install(monkeypatch, gpu)
    with pytest.raises(BackendError) as caught:
        attend(Recipe((box_pass(),)), *(np.zeros((LENGTH, DIM), np.float16),) * 3, None, None, False)
    assert str(caught.value) == message
    del caught
    gc.collect()  # what was uploaded is freed while there is a driver
    forget()


def test_small_numbers(fake):
    assert schedule.scale_log2(0.0) == 2.0**-126
    assert schedule.scale_log2(1e-38) == pytest.approx(1e-38 * math.log2(math.e), abs=0)  # small is not 0
    assert schedule.scale_log2(-2.0) == pytest.approx(2 * math.log2(math.e))
    assert padded(1) == 8
    assert padded(64) == 64
