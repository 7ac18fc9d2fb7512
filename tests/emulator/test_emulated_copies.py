"""Copies between any strides, by the text that a GPU runs: every number of the target, and nothing beside it."""

from itertools import product

import numpy as np
import pytest

from splat_numba.emulator.machine import EmulatedMachine
from splat_numba.errors import PlanError
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.schedules.schedule import ScheduleBuilder
from splat_numba.gen.schedules.tensor import Tensor, contiguous, padded_strides
from splat_numba.gen.targets.gpu.copying import Copying
from splat_numba.gen.targets.target import copy_schedule

SIZES = (2, 3, 5, 7)
ROOM = 8192  # bytes of a buffer, of which the arrays have the middle
MIDDLE = ROOM // 2


def steps_of(itemsize):
    """Kinds of strides, by name."""
    odd = contiguous(SIZES, 9, itemsize)
    return {
        "contiguous": contiguous(SIZES, SIZES[3], itemsize),
        "padded": padded_strides(SIZES, itemsize),
        "odd": odd,
        "negative": tuple(-step for step in odd),
        "turned": (*odd[:2], itemsize, 9 * itemsize),
        "side by side": (odd[0], 9 * itemsize, 27 * itemsize, itemsize),
    }


def copied(source, target, given):
    """The bytes of the target's buffer before and after a copy. given: bytes of the source's buffer."""
    machine = EmulatedMachine()
    bytes_of = {name: Tensor((1, 1, 1, ROOM // 4), (0, 0, 0, 4), "float32", name) for name in ("source", "target")}
    for name, one in bytes_of.items():
        machine.reserve(name, ROOM)
        machine.read(one)[...] = given.view(np.float32) if name == "source" else np.float32(7.5)
    before = machine.read(bytes_of["target"]).view(np.uint8).reshape(-1).copy()
    machine.run(copy_schedule(source, target, Gpu()))
    return before, machine.read(bytes_of["target"]).view(np.uint8).reshape(-1).copy()


def array_in(data, tensor, dtype):
    """A view of an array in a buffer's bytes."""
    return np.ndarray(tensor.sizes, dtype, data.data, tensor.offset, tensor.strides)


def check(source_steps, target_steps, dtypes=("uint16", "uint16"), names=("float16", "float16"), sizes=SIZES):
    rng = np.random.default_rng(3)
    given = rng.integers(0, 256, ROOM, np.uint8)
    source = Tensor(sizes, source_steps, names[0], "source", MIDDLE)
    target = Tensor(sizes, target_steps, names[1], "target", MIDDLE)
    before, after = copied(source, target, given)
    array_in(before, target, dtypes[1])[...] = array_in(given, source, dtypes[0])
    np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize(
    ("source", "target"), [*product(steps_of(2), ["padded", "negative"]), ("padded", "side by side")]
)
def test_copies_of_16_bits(source, target):
    check(steps_of(2)[source], steps_of(2)[target])


@pytest.mark.parametrize(("name", "bits"), [("float32", "uint32"), ("float64", "uint64")])
def test_copies_of_wider_numbers(name, bits):
    itemsize = np.dtype(bits).itemsize
    check(steps_of(itemsize)["negative"], steps_of(itemsize)["odd"], (bits, bits), (name, name))


@pytest.mark.parametrize("axis", range(4))
def test_a_stride_of_0_is_read_again_and_again(axis):
    steps = list(steps_of(2)["odd"])
    steps[axis] = 0
    check(tuple(steps), steps_of(2)["padded"])


@pytest.mark.parametrize("sizes", [(1, 1, 1, 700), (1, 1, 700, 1), (3, 1, 5, 67)], ids=str)
def test_several_blocks(sizes):
    check(contiguous(sizes, sizes[3], 2), contiguous(sizes, sizes[3], 2), sizes=sizes)


def test_an_empty_copy_is_none():
    empty = Tensor((2, 0, 5, 7), (2, 2, 2, 2), "float16", "source")
    assert copy_schedule(empty, empty, Gpu()).steps == ()


CONVERTED = {
    ("int64", "int32"): (
        [0, 5, -1, 2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32 + 5, -(2**32) + 5, 2**63 - 1, -(2**63)],
        [0, 5, -1, 2**31 - 1, 2**31 - 1, -(2**31), -(2**31), 2**31 - 1, -(2**31), 2**31 - 1, -(2**31)],
    ),
    ("float64", "float32"): ([0.0, 1 / 3, -1e300, 1e-300, np.inf], np.float32([0, 1 / 3, -np.inf, 0, np.inf])),
    ("float16", "float32"): ([0.0, 0.1, -65504, 6e-8, np.inf], np.float16([0, 0.1, -65504, 6e-8, np.inf])),
}


@pytest.mark.filterwarnings("ignore:overflow")
@pytest.mark.parametrize(("kinds", "numbers"), CONVERTED.items(), ids=str)
def test_conversions(kinds, numbers):
    given, wanted = (np.array(one, kind) for one, kind in zip(numbers, kinds, strict=True))
    data = np.zeros(ROOM, np.uint8)
    data[: given.nbytes] = given.view(np.uint8)
    sizes = (1, 1, 1, given.size)
    source, target = (
        Tensor(sizes, contiguous(sizes, given.size, np.dtype(kind).itemsize), kind, name)
        for kind, name in zip(kinds, ("source", "target"), strict=True)
    )
    _, after = copied(source, target, data)
    np.testing.assert_array_equal(array_in(after, target, kinds[1])[0, 0, 0], wanted)


def test_what_no_text_converts_is_refused():
    one = Tensor((1, 1, 1, 4), (0, 0, 0, 4), "float32", "source")
    with pytest.raises(PlanError) as caught:
        copy_schedule(one, Tensor(one.sizes, (0, 0, 0, 2), "float16", "target"), Gpu())
    assert str(caught.value) == (
        "a copy wanted of one type, or float16 to float32, float64 to float32, int64 to int32, got float32 to "
        "float16. Convert it first."
    )
    many = Tensor((1 << 20, 1 << 12, 1, 1), (0, 0, 0, 2), "float16", "source")
    with pytest.raises(PlanError, match=r"^arrays that are copied wanted of fewer than 2\*\*32 rows, got 4294967296"):
        copy_schedule(many, many, Gpu())
    with pytest.raises(ValueError, match="copy of source wanted in a schedule that has no copying"):
        ScheduleBuilder("source").copy(one, one)


def test_nothing_overlaps_a_copy():
    """Texts that begin early wait for what stages make, and read operands before."""
    builder = ScheduleBuilder("source", copying=Copying("sm_90"))
    one = Tensor((1, 1, 1, 4), (0, 0, 0, 4), "float32", "source")
    text = copy_schedule(one, one, Gpu()).steps[0]
    for number in range(3):
        if number == 2:
            builder.copy(one, one)
        builder.launch(text.text, 1, text.numbers, text.pointers, overlaps=True)
        builder.launch(text.text, 1, text.numbers, text.pointers, overlaps=True)
    assert [step.overlaps for step in builder.finish().steps] == [False, True, True, True, False, False, True]
