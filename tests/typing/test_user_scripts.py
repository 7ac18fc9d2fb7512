"""Types as users' checkers see them: right scripts pass, words that no argument takes fail; what completion offers."""

import inspect
import re
import subprocess
import sys
import typing
from pathlib import Path

import pytest

import splat_numba as splat
from splat_numba.arguments import typed
from splat_numba.arguments.backends import BACKENDS, SPELLINGS
from splat_numba.arguments.layouts import LAYOUTS
from splat_numba.gen.language.dtypes import IEEE, ITEMSIZE, TF32
from splat_numba.gen.targets.registry import TARGETS
from tests.import_layers import REPOSITORY, python

HERE = Path(__file__).parent


CHECKERS = {
    "mypy": ["--strict"],
    "basedpyright": ["--pythonpath", sys.executable],  # pyright, with the Node that it needs in a wheel: no network
}


@pytest.mark.parametrize("checker", CHECKERS)
def test_right_scripts_pass_and_wrong_lines_fail(checker):
    pytest.importorskip(checker, reason=f"{checker} is not installed")
    scripts = [HERE / "right.py", HERE / "wrong.py"]
    command = [sys.executable, "-m", checker, *CHECKERS[checker], *map(str, scripts)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    lines = re.findall(r"^\s*(.+?):(\d+):(?:\d+ -)? error", done.stdout, re.MULTILINE)
    found = {(Path(name).name, int(line)) for name, line in lines}
    lines = scripts[1].read_text().splitlines()
    wanted = {("wrong.py", number) for number, line in enumerate(lines, 1) if "# refused" in line}
    assert found == wanted, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("words", "taken"),
    [
        (typed.Layout, LAYOUTS),
        (typed.Backend, BACKENDS),
        (typed.Target, {*TARGETS, *SPELLINGS}),
        (typed.DtypeName, ITEMSIZE),
        (typed.Precision, (IEEE, TF32)),
    ],
)
def test_the_words_of_a_type_are_those_that_are_taken(words, taken):
    assert set(typing.get_args(words)) == set(taken)


@pytest.mark.parametrize(
    ("function", "options"),
    [(splat.attention, typed.CallOptions), (splat.attention_vjp, typed.VjpOptions)],
)
def test_overloads_have_the_options_that_the_function_has(function, options):
    named = [one.name for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY]
    assert set(named) == {*options.__annotations__, "return_lse"}


def test_completion_offers_all_that_there_is_before_anything_is_used():
    offered = python("import splat_numba as splat; print(*dir(splat))").split()
    assert set(splat.__all__) <= set(offered)
    assert {"__version__", "__doc__", "__name__"} <= set(offered)
    assert len(offered) == len(set(offered))
    public = [name for name in vars(splat) if not name.startswith("_") and not hasattr(vars(splat)[name], "__path__")]
    modules = {name for name in public if type(vars(splat)[name]) is type(sys)}
    assert set(public) - modules - {"TYPE_CHECKING"} <= set(offered)
    assert all(hasattr(splat, name) for name in offered)
