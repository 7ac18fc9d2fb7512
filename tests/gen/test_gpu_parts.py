"""Parts of a kernel as device functions: what they are given and give back, and what they refuse to be."""

import ast
from contextlib import ExitStack
from types import SimpleNamespace

import numpy as np
import pytest

from splat_numba.gen.targets.gpu.parts import KernelWriter

HEAD = "step = ptx.instruction(3)"
CUDA = SimpleNamespace(jit=lambda **_: lambda function: function, local=SimpleNamespace(array=np.zeros))


def kernel(head=HEAD):
    out = KernelWriter()
    out.line(head)
    out.place_device()
    out.line("def kernel(a, b, result):")
    return out


def functions(text):
    """Parameters and returned names of each part."""
    found = {}
    for node in ast.parse(text).body[3:]:
        last = node.body[-1]
        returned = ast.unparse(last.value).strip("()") if isinstance(last, ast.Return) else ""
        found[node.name] = (", ".join(one.arg for one in node.args.args), returned)
    return found


def run(text, *arguments):
    names = {"np": np, "cuda": CUDA, "ptx": SimpleNamespace(instruction=lambda _: None), "f32": np.float32}
    exec(compile(text, "text", "exec"), names)  # noqa: S102 - the text is this test's own
    result = [None]
    names["kernel"](*arguments, result)
    return result[0]


def test_a_part_is_given_what_it_reads_and_gives_back_what_is_wanted():
    out = kernel()
    with out.suite():
        with out.part("start", "Begins."):
            out.lines("unwanted = a\nx = a + b\ny = x * 2")
        out.line("result[0] = y - x")
    text = out.text()
    assert functions(text) == {"start": ("a, b", "x, y")}
    assert run(text, 3, 4) == 7


def test_what_a_loop_wants_in_its_next_round_is_given_back():
    out = kernel()
    with out.suite():
        out.line("total, i = 0, 0")
        with out.block("while i < a"), out.part("add", "Adds."):
            out.lines("half = i // 2\ntotal = total + half\ni = i + 1")
        out.line("result[0] = total")
    assert functions(out.text()) == {"add": ("i, total", "i, total")}
    assert run(out.text(), 5, 0) == 4


@pytest.mark.parametrize(
    ("statement", "given"),
    [
        ("if b > 0:\n    x = b", "b, x"),
        ("for i in range(b):\n    x = i", "b, x"),
        ("for i in range(2):\n    x = i", ""),
        ("while b > 0:\n    x = b\n    b = b - 1", "b, x"),
        ("x += b", "x, b"),
        ("x = y = b", "b"),
    ],
)
def test_what_may_stay_as_it_was_is_given(statement, given):
    out = kernel()
    with out.suite():
        out.line("x = a")
        with out.part("change", "Perhaps."):
            out.lines(statement)
        out.line("result[0] = x")
    assert functions(out.text()) == {"change": (given, "x")}
    inside = "\n".join(f"    {line}" for line in ("x = a", *statement.splitlines(), "result[0] = x"))
    text = f"def kernel(a, b, result):\n{inside}"
    assert run(out.text(), 5, 2) == run(text, 5, 2)


def test_a_part_in_several_places_stands_once_and_gives_back_what_any_of_them_wants():
    out = kernel()
    with out.suite():
        out.line("taken = cuda.local.array(2, dtype=np.float32)")
        for place in (0, 1):
            with out.part("take", "An element, and the next place.", place=str(place), number=f"a + {place}"):
                out.lines("taken[place] = number\nfollowing = place + 1\nbefore = number")
        out.line("result[0] = taken[0] * taken[1] + following")
    text = out.text()
    assert functions(text) == {"take": ("taken, place, number", "following")}
    assert text.count("following = take(taken, ") == 2
    assert run(text, 3, 0) == 14


def test_parts_of_parts_and_functions_of_others():
    out = kernel()
    out.needs("twice", lambda text: text.lines("\n@device\ndef twice(x):\n    return 2 * x"))
    with out.suite():
        with out.part("outer", "Around."):
            out.line("x = twice(a)")
            with out.block("if b > 0"), out.part("inner", "Within."):
                out.line("step_size = b * x")
                out.line("x = x + step_size  # and a comment")
                out.line("# at the end")
        out.line("result[0] = x")
    text = out.text()
    assert functions(text) == {"outer": ("a, b", "x"), "inner": ("b, x", "x"), "twice": ("x", "2 * x")}
    assert run(text, 1, 3) == 8
    assert text.splitlines()[1].startswith("device = cuda.jit(device=True")


def test_a_text_without_parts_is_as_it_is_written():
    out = kernel()
    with out.suite():
        out.line("result[0] = a")
    assert out.text() == f"{HEAD}\ndef kernel(a, b, result):\n    result[0] = a\n"


def twice_different(out):
    for number in (1, 2):
        with out.part("one", "Differs."):
            out.line(f"x = {number}")


def leaving_array(out):
    with out.part("one", "Makes registers."):
        out.line("x = cuda.local.array(2, dtype=np.float32)")
    out.line("x[0] = 1")


def name_of_variable(out):
    out.line("one = 1")
    with out.part("one", "Is called like a variable."):
        out.line("x = a")


def name_of_instruction(out):
    with out.part("one", "Hides an instruction."):
        out.line("step = a")


def leaving_counter(out):
    out.line("i = a")
    with out.part("one", "Counts by a name that is wanted."), out.block("for i in range(3)"):
        out.line("b[i] = 0")
    out.line("result[0] = i")


def given_name_of_others(out):
    out.line("row = a")
    with out.part("one", "Is given a name that stands for something else.", row="b"):
        out.line("x = row")
    out.line("result[0] = x + row")


@pytest.mark.parametrize(
    ("emit", "message"),
    [
        (twice_different, "one stands in two places with different statements"),
        (leaving_array, "one makes arrays that are wanted behind it: ['x']"),
        (name_of_variable, "variables wanted with names of their own, got ['one']"),
        (name_of_instruction, "variables wanted with names of their own, got ['step']"),
        (given_name_of_others, "one is given names that are wanted behind it: ['row']"),
        (leaving_counter, "one counts by names that are wanted behind it: ['i']"),
    ],
)
def test_what_would_mean_something_else_is_refused(emit, message):
    out = kernel()
    with out.suite():
        emit(out)
    with pytest.raises(AssertionError) as error:
        out.text()
    assert str(error.value) == message


def test_other_statements_are_refused():
    out = kernel()
    with out.suite(), out.part("one", "Deletes."):
        out.line("del a")
    with pytest.raises(TypeError, match="statement wanted of those that kernels have, got del a"):
        out.text()


def test_many_levels_take_no_longer_than_their_lines():
    out = kernel()
    with out.suite(), out.part("count", "Loops within loops."), ExitStack() as levels:
        for level in range(60):
            levels.enter_context(out.block(f"for i_{level} in range(b)"))
        out.line("a[0] += 1")
    assert functions(out.text()) == {"count": ("b, a", "")}
