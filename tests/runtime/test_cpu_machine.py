"""The CPU's schedules and the machine that runs them: everything by name, nothing by position."""

import numpy as np
import pytest
from numba import types

from splat_numba.emulator.cpu_text import emulate
from splat_numba.errors import EmulationError
from splat_numba.gen.language.cpu_entry import CpuEntry, CpuText, arrays, numbers
from splat_numba.gen.schedules.array_schedule import ArrayScheduleBuilder
from splat_numba.runtime.cpu.code import signature_of
from splat_numba.runtime.cpu.machine import LoadedSchedule

ENTRY = CpuEntry(
    "add",
    (*numbers("float32", "factor"), *arrays("float16", 2, "source"), *arrays("int64", 1, "total", contiguous=True,
                                                                             written=True)),
)  # fmt: skip
TEXT = f"""
def {ENTRY.header}:
    for item in range(first, last):
        total[item] += int(factor) * int(source[item, 0])
"""


def given_back(rows, steps=(), limits=None):
    """What a schedule of one launch makes of an array."""
    builder = ArrayScheduleBuilder("given")
    builder.fresh("total", "int64", rows, zeroed=True)
    for step in steps:
        step(builder)
    named = {"total": "total", "source": "given"}  # in another order than the entry's
    builder.launch(ENTRY, rows if limits is None else len(limits) - 1, named, {"factor": 3}, limits)
    schedule = builder.finish("total")
    source = np.arange(rows, dtype=np.uint16)[:, None]
    return (
        LoadedSchedule(schedule, emulate(CpuText("text", TEXT, (ENTRY,)))).run({"given": source}, 2)["total"].tolist()
    )


def test_arguments_go_by_name_and_results_come_back():
    assert ENTRY.header == "add(first, last, factor, source, total)"
    assert given_back(4) == [0, 3, 6, 9]


def test_ranges_of_equal_work_are_handed_out_whole():
    assert given_back(5, limits=np.array([0, 1, 1, 5])) == [0, 3, 6, 9, 12]


def test_numpy_makes_buffers_changes_them_and_what_is_unwanted_goes():
    met = []

    def steps(builder):
        builder.compute(("low", "high"), lambda total: (total + 1, total + 2), "total")
        builder.change(lambda total, low, high: total.__iadd__(low + high), "total", "low", "high")
        builder.compute("seen", lambda *_: met.append("seen"), "total")

    assert given_back(2, (steps,)) == [3, 6]
    assert met == ["seen"]


def test_the_signature_is_the_entrys():
    wanted = types.Array(types.uint16, 2, "A", readonly=True), types.Array(types.int64, 1, "C")
    assert signature_of(ENTRY) == types.int64(types.int64, types.int64, types.float32, *wanted)


@pytest.mark.parametrize(
    ("named", "values", "message"),
    [
        ({"source": "given"}, {"factor": 1}, "total"),
        ({"source": "given", "total": "given"}, {}, "factor"),
        ({"source": "given", "total": "elsewhere"}, {"factor": 1}, r"no such buffers: \['elsewhere'\]"),
    ],
)
def test_a_parameter_that_nobody_gives_and_a_buffer_that_nobody_has_are_refused(named, values, message):
    with pytest.raises(ValueError, match=message):
        ArrayScheduleBuilder("given").launch(ENTRY, 1, named, values)


def test_a_name_stands_for_one_buffer():
    builder = ArrayScheduleBuilder("given")
    with pytest.raises(ValueError, match="given is another buffer already"):
        builder.fresh("given", "int64", 1)


SOURCE, TOTAL = np.zeros((1, 1), np.uint16), np.zeros(1, np.int64)


@pytest.mark.parametrize(
    "arguments",
    [
        (1, SOURCE, TOTAL), (np.float32(1), SOURCE), (np.float32(1), SOURCE[0], TOTAL),
        (np.float32(1), SOURCE.view(np.int16), TOTAL), (np.float32(1), SOURCE, np.zeros(4, np.int64)[::2]),
    ],
    ids=["a number's type", "too few", "axes", "an array's type", "strides"],
)  # fmt: skip
def test_the_emulator_takes_what_the_entry_says(arguments):
    with pytest.raises(EmulationError, match="wanted"):
        emulate(CpuText("text", TEXT, (ENTRY,)))["add"](0, 0, *arguments)


def test_the_emulator_refuses_a_write_to_an_input():
    body = "    assign(address(source, 0), 0, 1)"
    text = f"from splat_numba.runtime.simd import address, assign\ndef {ENTRY.header}:\n{body}\n"
    with pytest.raises(EmulationError, match="a write to an input"):
        emulate(CpuText("text", text, (ENTRY,)))["add"](0, 1, np.float32(1), SOURCE, TOTAL)
