"""The GPU's handler of XLA's calls against the machine that any other call on a GPU goes through: the same launches.

Machine code with a driver of ctypes functions that only notes what it is asked; neither XLA nor JAX is there.
"""

# ruff: noqa: ARG001, F401, F811 - fixtures are imported, and asked for by name

import ctypes
import os
import subprocess
import sys
import threading
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from splat_numba.executors.choice import choose_executor
from splat_numba.executors.given import Given
from splat_numba.executors.xla.gpu_programs import backward_call, forward_call
from splat_numba.formats.patterns import causal, window
from splat_numba.gen.plans.problem import Problem
from splat_numba.gen.schedules.schedule import COUNTERS, SCRATCH
from splat_numba.gen.schedules.tensor_map import MAP_BYTES
from splat_numba.runtime.cuda import device, launch_layout
from splat_numba.runtime.cuda.places import maps_of, pointers_of
from splat_numba.runtime.cuda.ready import ReadySchedule
from splat_numba.runtime.xla import gpu_program, layout
from splat_numba.runtime.xla.gpu_program import LoadedGpuProgram
from splat_numba.settings import current
from tests.runtime.fake_cuda import fake
from tests.runtime.fake_native import CODE
from tests.runtime.fake_xla_gpu import STREAM, Frame, install

PROBLEM = Problem(300, 300, 64, 64, "float16", 2, 4, 2)
MASK = window(100, 0)
REFUSED = gpu_program.ERRORS[layout.GPU_REFUSED]


@pytest.fixture
def native(fake, monkeypatch):
    return install(monkeypatch, fake)


def program_of(make=forward_call, mask=MASK, problem=PROBLEM, target=None, ragged=False):
    recipe = Given(mask, choose_executor("cuda", target), "bhsd", None)
    return make(recipe, problem, 0.125, current(), ragged=ragged).program


def load(program, devices=(0,)):
    return LoadedGpuProgram(program, current(), [device.device(one) for one in devices])


def addresses_of(program, first=1 << 30):
    places = [first + (number << 24) for number in range(program.arguments + program.results)]
    return places[: program.arguments], places[program.arguments :]


def call(native, program, loaded, first=1 << 30, **options):
    frame = Frame(*addresses_of(program, first), **options)
    return frame.call(loaded), frame.errors


@dataclass(frozen=True)
class At:
    """A framework whose arrays are all at one place."""

    place: int

    def maker(self, _shape, _dtype, _like):
        return lambda _: self.place

    def address(self, one):
        return one


def reference(fake, program):
    """What the other machine launches for the same addresses."""
    given, made = addresses_of(program)
    every = (*given, *made)
    places = [every[program.buffers[one]] if one in program.buffers else 0 for one in program.schedule.arguments]
    scratch = every[program.buffers[SCRATCH]] if program.schedule.scratch else 0
    ReadySchedule(program.schedule, device.device(0), current()).run(places, STREAM, At(scratch), None)


def own_of(step, pointers):
    """The parameters that point to a machine's own memory, which is elsewhere in each."""
    return {*step.maps, *(name for name, place in pointers.items() if place.buffer == COUNTERS)}


@pytest.mark.parametrize("make", [forward_call, backward_call])
@pytest.mark.parametrize(
    ("target", "ragged", "mask"),
    [(None, False, window(100, 0)), (None, True, (causal(), causal(), window(9), window(9))), ("simt", True, causal())],
)
def test_launches_are_those_of_the_other_machine(fake, native, make, target, ragged, mask):
    program = program_of(make, mask, target=target, ragged=ragged)
    loaded = load(program)
    assert call(native, program, loaded) == (0, [])
    ours, our_maps = fake.launches[:], fake.maps[:]
    fake.launches.clear()
    fake.maps.clear()
    reference(fake, program)
    steps = program.schedule.steps
    assert len(ours) == len(fake.launches) == len(steps)
    for one, other, step, pointers in zip(ours, fake.launches, steps, pointers_of(program.schedule), strict=True):
        for name in own_of(step, pointers):
            delattr(one, name)
            delattr(other, name)
        assert one == other
    assert [(one[2], *map(list, one[3:7]), *one[7:]) for one in our_maps] == [
        (one[2], *map(list, one[3:7]), *one[7:]) for one in fake.maps
    ]
    assert (len(our_maps) > 0) == (target is None)


def test_tensor_maps_and_counters_stand_in_one_slot(fake, native):
    program = program_of()
    loaded = load(program)
    call(native, program, loaded)
    (one,), maps = fake.launches, maps_of(program.schedule)
    slot = fake.memory[one.q_maps]
    assert np.frombuffer(slot, np.uint64)[: 16 * len(maps)].tolist() == [
        n + 1 for n in range(len(maps)) for _ in range(16)
    ]
    (counters,) = (name for name, place in program.schedule.steps[0].pointers.items() if place.buffer == COUNTERS)
    assert getattr(one, counters) == one.q_maps + MAP_BYTES * len(maps)
    assert not any(slot[MAP_BYTES * len(maps) :])
    assert len(slot) - MAP_BYTES * len(maps) >= 4 * program.schedule.counters


def test_a_slot_belongs_to_addresses_and_is_written_once(fake, native):
    program = program_of()
    loaded = load(program)
    for first in (1 << 30, 1 << 31, 1 << 30):
        call(native, program, loaded, first)
    one, other, again = (launch.q_maps for launch in fake.launches)
    assert one == again != other
    assert native.asked.count("cuMemcpyHtoDAsync_v2") == 2
    assert native.asked.count("cuMemAlloc_v2") == 1
    assert "cuCtxSynchronize" not in native.asked


@pytest.fixture
def few(monkeypatch):
    """As many entries as one key is looked for in."""
    monkeypatch.setattr(gpu_program, "ENTRIES", 16)


def test_slots_are_given_away_when_the_device_is_idle(fake, native, few):
    program = program_of()
    loaded = load(program)
    for number in range(1, 18):
        call(native, program, loaded, number << 32)
    assert native.asked.count("cuCtxSynchronize") == 1
    assert len({one.q_maps for one in fake.launches[:16]}) == 16
    assert fake.launches[16].q_maps in {one.q_maps for one in fake.launches[:16]}
    assert np.frombuffer(fake.memory[fake.launches[16].q_maps], np.uint64)[0] == fake.maps.index(
        next(one for one in fake.maps if one[2] == 17 << 32)
    ) + 1  # fmt: skip


def test_what_a_graph_may_read_is_never_given_away(fake, native, few):
    program = program_of()
    loaded = load(program)
    fake.capturing = True
    for number in range(1, 18):
        call(native, program, loaded, number << 32)
    assert len({one.q_maps for one in fake.launches}) == 17  # the last is remembered by nobody
    fake.capturing = False
    call(native, program, loaded, 18 << 32)
    call(native, program, loaded, 3 << 32)
    assert fake.launches[17].q_maps not in {one.q_maps for one in fake.launches[:17]}
    assert fake.launches[18].q_maps == fake.launches[2].q_maps
    assert "cuCtxSynchronize" not in native.asked


def test_a_slot_that_a_graph_meets_later_is_kept_too(fake, native, few):
    program = program_of()
    loaded = load(program)
    call(native, program, loaded, 1 << 32)
    fake.capturing = True
    call(native, program, loaded, 1 << 32)
    fake.capturing = False
    for number in range(2, 40):
        call(native, program, loaded, number << 32)
    assert fake.launches[0].q_maps not in {one.q_maps for one in fake.launches[2:]}


@pytest.mark.parametrize("capturing", [False, True])
def test_launches_overlap_the_one_before_but_in_a_graph(fake, native, capturing):
    program = program_of(backward_call)
    steps = tuple(replace(one, overlaps=number > 0) for number, one in enumerate(program.schedule.steps))
    program = replace(program, schedule=replace(program.schedule, steps=steps))
    loaded = load(program)
    fake.capturing = capturing
    assert call(native, program, loaded) == (0, [])
    assert native.overlaps == [0, *[0 if capturing else 1] * (len(steps) - 1)]
    assert len(steps) > 1
    assert fake.mode == 0  # as it was


@pytest.mark.parametrize("function", [one for one in gpu_program.DRIVER.values() if one != "cuCtxSynchronize"])
def test_a_refusal_of_the_drivers_is_an_error_and_the_next_call_works(fake, native, function):
    program = program_of()
    loaded = load(program)
    fake.contexts[-1] = 12  # another one is current
    native.refuse = function
    found = call(native, program, loaded)
    if function == "cuCtxPopCurrent_v2":
        assert found == (0, [])
    else:
        assert found == (1, [(REFUSED[0].replace("000", str(CODE)), REFUSED[1])])
        assert f"{CODE} is the CUDA driver's code" in found[1][0][0]
    native.refuse = None
    fake.contexts[:] = [12]
    assert call(native, program, loaded) == (0, [])
    assert fake.contexts == [12]
    assert fake.launches


def test_a_device_that_will_not_wait_keeps_its_slots(fake, native, few):
    program = program_of()
    loaded = load(program)
    for number in range(1, 17):
        call(native, program, loaded, number << 32)
    native.refuse = "cuCtxSynchronize"
    assert call(native, program, loaded, 17 << 32) == (0, [])
    assert len({one.q_maps for one in fake.launches}) == 17


def test_a_slot_that_was_half_written_is_nobodys(fake, native, few):
    program = program_of()
    loaded = load(program)
    for number in range(1, 17):
        call(native, program, loaded, number << 32)
    native.refuse = "cuMemcpyHtoDAsync_v2"
    assert call(native, program, loaded, 17 << 32)[0] == 1
    native.refuse = None
    written = native.asked.count("cuMemcpyHtoDAsync_v2")
    for number in range(1, 17):
        assert call(native, program, loaded, number << 32) == (0, [])
    assert native.asked.count("cuMemcpyHtoDAsync_v2") > written


def test_the_context_of_the_stream_is_current(fake, native):
    program = program_of()
    loaded = load(program)
    fake.contexts[-1] = 12
    call(native, program, loaded)
    assert native.asked.count("cuCtxPushCurrent_v2") == native.asked.count("cuCtxPopCurrent_v2") == 1
    fake.contexts[-1] = device.device(0).context
    call(native, program, loaded)
    assert native.asked.count("cuCtxPushCurrent_v2") == 1


def test_of_several_devices_the_calls_own(fake, native):
    fake.count = 2
    program = program_of()
    loaded = load(program, (0, 1))
    fake.contexts[-1] = device.device(0).context
    tables = []
    for ordinal in (0, 1):
        assert call(native, program, loaded, ordinal=ordinal) == (0, [])
        tables.append(fake.launches[-1].rows)
    assert tables[0] != tables[1]
    assert fake.launches[0].q_maps != fake.launches[1].q_maps
    assert call(native, program, loaded, ordinal=2) == (1, [gpu_program.ERRORS[layout.GPU_NO_DEVICE]])


def test_threads_at_once_have_their_own_slots(fake, native):
    program = program_of()
    loaded = load(program)
    failed = []

    def repeat(first):
        found = [call(native, program, loaded, first) for _ in range(20)]
        failed.extend(one for one in found if one != (0, []))

    threads = [threading.Thread(target=repeat, args=(number << 32,)) for number in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(fake.launches) == 60
    assert len({(one.out, one.q_maps) for one in fake.launches}) == len({one.out for one in fake.launches}) == 3


def test_what_a_call_is_refused_for(fake, native, monkeypatch):
    program = program_of()
    loaded = load(program)
    given, made = addresses_of(program)
    for frame, why in (
        (Frame(given[:-1], made), layout.GPU_WRONG_COUNT), (Frame(given, [*made, 1 << 40]), layout.GPU_WRONG_COUNT),
        (Frame([given[0] + 8, *given[1:]], made), layout.GPU_MISALIGNED),
    ):  # fmt: skip
        assert (frame.call(loaded), frame.errors) == (1, [gpu_program.ERRORS[why]])
    assert call(native, program, loaded, stream_error=55) == (55, [])
    nothing = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(lambda _: None)
    usual = gpu_program.c_function
    monkeypatch.setattr(
        gpu_program,
        "c_function",
        lambda name: ctypes.cast(nothing, ctypes.c_void_p).value if name == "malloc" else usual(name),
    )
    assert call(native, program, load(program)) == (1, [gpu_program.ERRORS[layout.GPU_NO_MEMORY]])
    assert not fake.launches


def test_other_stages_do_nothing(fake, native):
    program = program_of()
    loaded = load(program)
    for stage in (0, 1, 2, 4):
        assert call(native, program, loaded, stage=stage) == (0, [])
    assert not native.asked


def test_the_question_for_a_version_says_that_graphs_may_capture(fake, native):
    loaded = load(program_of())
    metadata, extension, frame = (ctypes.create_string_buffer(168) for _ in range(3))
    ctypes.c_int32.from_address(ctypes.addressof(extension) + layout.EXTENSION_TYPE).value = layout.METADATA
    for buffer, place, value in (
        (extension, layout.EXTENSION_METADATA, metadata), (frame, layout.EXTENSION, extension),
    ):  # fmt: skip
        ctypes.c_int64.from_address(ctypes.addressof(buffer) + place).value = ctypes.addressof(value)
    assert ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address)(ctypes.addressof(frame)) == 0
    assert np.frombuffer(metadata.raw, np.int32)[6:9].tolist() == [*layout.VERSION, layout.CAPTURABLE]


def test_an_empty_problem_launches_nothing(fake, native):
    program = program_of(problem=replace(PROBLEM, batch=0))
    assert call(native, program, load(program)) == (0, [])
    assert not fake.launches


def test_names_depend_on_what_is_done_and_on_nothing_else(fake, native):
    found = program_of()
    assert found.digest() == program_of().digest()
    others = [
        program_of(mask=window(101, 0)), program_of(ragged=True), program_of(backward_call), program_of(target="simt"),
        program_of(problem=replace(PROBLEM, batch=3)), replace(found, alignment=32),
    ]  # fmt: skip
    assert len({one.digest() for one in (found, *others)}) == 7


IN_ANOTHER_PROCESS = "from tests.runtime.test_xla_gpu_handler import name_of_gradients; print(name_of_gradients())"


def name_of_gradients():
    """Nothing is compiled for it, so that no GPU and no compiler are needed."""
    return program_of(backward_call, (causal(), causal(), window(9), window(9)), ragged=True).digest()


def test_another_process_gives_the_same_names():
    done = subprocess.run(
        [sys.executable, "-c", IN_ANOTHER_PROCESS], capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip
    assert done.stdout.strip() == name_of_gradients()


@pytest.mark.parametrize(("make", "count"), [(forward_call, 4), (backward_call, 8)])
def test_copies_are_launches_as_well(fake, native, make, count):
    """Of every array, as rows of 60 numbers are no whole chunks."""
    program = program_of(make, problem=replace(PROBLEM, head_dim=60, value_dim=60))
    assert call(native, program, load(program)) == (0, [])
    ours = fake.copies[:]
    fake.copies.clear()
    reference(fake, program)
    assert ours == fake.copies
    assert len(ours) == count


def test_the_drivers_numbers():
    driver = pytest.importorskip("cuda.bindings.driver")
    attribute = driver.CUlaunchAttributeID.CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
    assert int(attribute) == launch_layout.OVERLAPS
    assert int(driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED) == layout.RELAXED
