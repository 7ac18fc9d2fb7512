"""The handler of XLA's calls on frames that are made here: threads that come late or never, errors, no memory.

Machine code against what ctypes lays out; neither XLA nor JAX is there.
"""

import ctypes
import threading
import time

import numpy as np
import pytest
from numba import njit

from splat_numba.gen.language.cpu_entry import CpuEntry, arrays, numbers
from splat_numba.runtime import words
from splat_numba.runtime.cpu.code import signature_of
from splat_numba.runtime.xla import layout, link, program, steps
from splat_numba.runtime.xla.program import BufferView, LoadedProgram, Program, ProgramLaunch
from splat_numba.settings import current

WORD = ctypes.sizeof(ctypes.c_int64)
ROWS, WIDTH = 64, 5
ERROR = "rows wanted with memory, got none.", layout.RESOURCE_EXHAUSTED


def words_of(*values):
    return (ctypes.c_int64 * len(values))(*values)


def put(buffer, offset, value, kind=ctypes.c_int64):
    kind.from_address(ctypes.addressof(buffer) + offset).value = value


class Xla:
    """What a frame points to. pool: called with (task, job) for every thread that is asked for; None: there is none."""

    def __init__(self, pool=None):
        self.errors, self.destroyed, self.asked, self.pool = [], [], 0, pool
        word_function = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)
        self.table = ctypes.create_string_buffer(layout.THREAD_POOL_SCHEDULE + WORD)
        self.functions = [word_function(one) for one in (self._create, self._destroy, self._schedule)]
        places = layout.ERROR_CREATE, layout.ERROR_DESTROY, layout.THREAD_POOL_SCHEDULE
        for place, one in zip(places, self.functions, strict=True):
            put(self.table, place, ctypes.cast(one, ctypes.c_void_p).value)

    def _create(self, given):
        assert ctypes.c_int64.from_address(given).value == layout.ERROR_SIZE
        message = ctypes.c_char_p.from_address(given + layout.ERROR_MESSAGE).value.decode()
        self.errors.append((message, ctypes.c_int32.from_address(given + layout.ERROR_CODE).value))
        return len(self.errors)

    def _destroy(self, given):
        self.destroyed.append(ctypes.c_int64.from_address(given + layout.DESTROYED_ERROR).value)
        return 0

    def _schedule(self, given):
        self.asked += 1
        if self.pool is None:
            return 77
        assert ctypes.c_int64.from_address(given + layout.SCHEDULE_CONTEXT).value == 99
        task = ctypes.c_int64.from_address(given + layout.SCHEDULE_TASK).value
        job = ctypes.c_int64.from_address(given + layout.SCHEDULE_DATA).value
        self.pool(ctypes.CFUNCTYPE(None, ctypes.c_int64)(task), job)
        return 0

    def call(self, loaded, arguments, results, stage=layout.EXECUTE):
        """What the handler returns for these arrays."""
        self.kept = []
        frame = ctypes.create_string_buffer(168)
        put(frame, layout.API, ctypes.addressof(self.table))
        put(frame, layout.CONTEXT, 99)
        put(frame, layout.STAGE, stage, ctypes.c_int32)
        for count, place, given in (
            (layout.ARGUMENT_COUNT, layout.ARGUMENTS, arguments), (layout.RESULT_COUNT, layout.RESULTS, results),
        ):  # fmt: skip
            buffers = [ctypes.create_string_buffer(48) for _ in given]
            for buffer, array in zip(buffers, given, strict=True):
                put(buffer, layout.BUFFER_DATA, array.ctypes.data)
            addresses = words_of(*map(ctypes.addressof, buffers))
            put(frame, count, len(given))
            put(frame, place, ctypes.addressof(addresses))
            self.kept += [buffers, addresses]
        return handler_of(loaded)(ctypes.addressof(frame))


def handler_of(loaded):
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(loaded.address)


def lengths_program(threads, batch=ROWS, most=40):
    """int32 to int64, which fails where a number is out of range."""
    entry = CpuEntry(
        "widen_lengths",
        (
            *arrays("int32", 1, "given", contiguous=True),
            *arrays("int64", 1, "lengths", contiguous=True, written=True),
            *numbers("int64", "most"),
        ),
    )
    given = {"given": BufferView(0, 0, (batch,), (4,), 4), "lengths": BufferView(1, 0, (batch,), (8,), 8), "most": most}
    return one_launch(entry, given, batch, threads)


def one_launch(entry, given, items, threads):
    compiled = link.compile_file(steps, ((entry.name, signature_of(entry)),), current())
    return Program((ProgramLaunch(compiled, entry, items, given, threads, ERROR),), 1, 1)


def load(made, threads=1):
    return LoadedProgram(made, current(), threads)


def arrays_of(batch=ROWS):
    return np.arange(batch, dtype=np.int32) % 41, np.full(batch, -1, np.int64)


def in_threads(started):
    def pool(task, job):
        one = threading.Thread(target=task, args=(job,))
        started.append(one)
        one.start()

    return pool


def test_a_step_runs_without_a_pool():
    xla, (given, lengths) = Xla(), arrays_of()
    assert xla.call(load(lengths_program(4), 4), [given], [lengths]) == 0
    np.testing.assert_array_equal(lengths, given)
    assert (xla.asked, xla.destroyed, xla.errors) == (1, [77], [])  # nobody asks twice where there is none


@pytest.mark.parametrize(("wanted", "most"), [(1, 1), (4, 4), (4, 2), (2, 4), (200, 200)])
def test_items_are_shared_among_as_many_threads_as_are_worth_it(wanted, most):
    started = []
    xla, (given, lengths) = Xla(in_threads(started)), arrays_of()
    loaded = load(lengths_program(wanted), most)
    for _ in range(20):
        lengths[:] = -1
        assert xla.call(loaded, [given], [lengths]) == 0
        np.testing.assert_array_equal(lengths, given)
    assert xla.asked == 20 * (min(wanted, most, ROWS) - 1)
    for one in started:
        one.join()


def test_threads_that_come_late_find_nothing_and_touch_nothing():
    late = []
    xla, (given, lengths) = Xla(lambda task, job: late.append((task, job))), arrays_of()
    assert xla.call(load(lengths_program(3), 3), [given], [lengths]) == 0
    np.testing.assert_array_equal(lengths, given)
    lengths[:] = -1
    for task, job in late:
        task(job)
    assert (lengths == -1).all()
    assert len(late) == 2


def test_the_caller_waits_for_those_who_are_at_work():
    """The pool's thread takes all items before the caller does, and is slow."""
    batch, started = 400_000, []

    def pool(task, job):
        one = threading.Thread(target=task, args=(job,))
        started.append(one)
        one.start()
        time.sleep(0.001)  # so that it has begun

    xla, (given, lengths) = Xla(pool), arrays_of(batch)
    loaded = load(lengths_program(2, batch), 2)
    for _ in range(10):
        lengths[:] = -1
        assert xla.call(loaded, [given], [lengths]) == 0
        np.testing.assert_array_equal(lengths, given)
    for one in started:
        one.join()


@pytest.mark.parametrize("threads", [1, 4])
def test_a_failing_range_is_an_error_of_xlas_and_the_next_call_works(threads):
    started = []
    xla, (given, lengths) = Xla(in_threads(started)), arrays_of()
    loaded = load(lengths_program(threads), threads)
    given[50] = 41
    assert xla.call(loaded, [given], [lengths]) == 1
    assert xla.errors == [ERROR]
    given[50] = 3
    assert xla.call(loaded, [given], [lengths]) == 0
    np.testing.assert_array_equal(lengths, given)
    for one in started:
        one.join()


def test_other_numbers_of_arrays_are_refused():
    xla, (given, lengths) = Xla(), arrays_of()
    assert xla.call(load(lengths_program(1)), [given, given], [lengths]) == 1
    assert xla.errors[0][1] == layout.INTERNAL
    assert (lengths == -1).all()


def test_without_memory_a_call_is_an_error(monkeypatch):
    nothing = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_size_t)(lambda _: None)
    usual = program.c_function
    address = ctypes.cast(nothing, ctypes.c_void_p).value
    monkeypatch.setattr(program, "c_function", lambda name: address if name == "malloc" else usual(name))
    xla, (given, lengths) = Xla(), arrays_of()
    assert xla.call(load(lengths_program(1)), [given], [lengths]) == 1
    assert xla.errors == [("splat_numba found no memory for a call's arguments.", layout.RESOURCE_EXHAUSTED)]


def test_other_stages_do_nothing():
    xla, (given, lengths) = Xla(), arrays_of()
    for stage in (0, 1, 2, 4):
        assert xla.call(load(lengths_program(1)), [given], [lengths], stage) == 0
    assert (lengths == -1).all()


def test_the_question_for_a_version_is_answered_wherever_it_stands_in_the_chain():
    metadata = ctypes.create_string_buffer(48)
    ctypes.memset(metadata, 0xFF, 48)
    last, first, frame = (ctypes.create_string_buffer(168) for _ in range(3))
    put(last, layout.EXTENSION_TYPE, layout.METADATA, ctypes.c_int32)
    put(last, layout.EXTENSION_METADATA, ctypes.addressof(metadata))
    put(first, layout.EXTENSION_TYPE, 1000, ctypes.c_int32)
    put(first, layout.EXTENSION_NEXT, ctypes.addressof(last))
    put(frame, layout.EXTENSION, ctypes.addressof(first))
    assert handler_of(load(lengths_program(1)))(ctypes.addressof(frame)) == 0
    assert metadata.raw[: layout.METADATA_MAJOR] == b"\xff" * layout.METADATA_MAJOR
    assert np.frombuffer(metadata.raw, np.int32)[6:9].tolist() == [*layout.VERSION, 0]
    assert metadata.raw[36:] == b"\xff" * 12


def test_arrays_at_any_strides_and_constant_ones_reach_their_function():
    entry = CpuEntry(
        "clear", (*arrays("float32", 4, "target", written=True), *arrays("int64", 1, "heads", contiguous=True))
    )
    target = np.ones((2, 3, 6, WIDTH), np.float32)
    view = BufferView(
        1, 8 * WIDTH, (2, 3, 2, WIDTH), (target.strides[0], target.strides[1], 2 * target.strides[2], 4), 4
    )
    made = one_launch(entry, {"target": view, "heads": np.array([0, 2])}, 4, 1)
    assert Xla().call(load(made), [np.zeros(1)], [target]) == 0
    wanted = np.ones_like(target)
    wanted[:, [0, 2], 2:6:2] = 0
    np.testing.assert_array_equal(target, wanted)


def test_names_depend_on_what_is_done_and_on_nothing_else():
    assert lengths_program(1).digest() == lengths_program(4).digest()
    others = [lengths_program(1, batch=63), lengths_program(1, most=41)]
    assert len({one.digest() for one in (lengths_program(1), *others)}) == 3


def test_a_view_of_no_buffer_is_refused():
    entry = CpuEntry("clear_rows", arrays("float32", 2, "target", contiguous=True, written=True))
    made = one_launch(entry, {"target": BufferView(2, 0, (1, WIDTH), (4 * WIDTH, 4), 4)}, 1, 1)
    with pytest.raises(RuntimeError, match="target wanted in 2 buffers"):
        load(made)


FLAGS = 0x3F  # of the mode: what happened so far


@njit
def exchange_mode(mode):
    """The thread's floating-point mode, and another one from now on."""
    before = words.float_mode()
    words.set_float_mode(mode)
    return before


def test_a_thread_that_flushes_subnormals_does_so_again_afterwards():
    usual = exchange_mode(0x1F80)
    if not usual:
        pytest.skip("a processor whose mode is not known")
    if usual & ~FLAGS != 0x1F80:
        exchange_mode(usual)
        pytest.skip("not an x86 processor in its usual mode")
    entry = CpuEntry("finish_sums", (
        *arrays("float32", 5, "sums", contiguous=True), *arrays("float32", 4, "target", written=True),
    ))  # fmt: skip
    shape, strides = (1, 1, 2, 3), (24, 24, 12, 4)
    views = {"sums": BufferView(0, 0, (2, *shape), (24, *strides), 4), "target": BufferView(1, 0, shape, strides, 4)}
    loaded = load(one_launch(entry, views, 1, 1))
    given, result = np.full((2, *shape), 1e-40, np.float32), np.zeros(shape, np.float32)
    exchange_mode(0x9FC0)  # flush results, and take operands for 0
    Xla().call(loaded, [given], [result])
    assert exchange_mode(usual) & ~FLAGS == 0x9FC0
    np.testing.assert_array_equal(result, np.float32(1e-40) * np.float32(2))
