"""Machine code is stale when a module that its text imports has changed: every such module is in the entry's name."""

import ast
import itertools
import py_compile
import sys
from dataclasses import replace
from functools import cache
from importlib.machinery import ModuleSpec
from typing import get_args

import pytest

from flurka_numba.gpu.plan import forward_plan
from flurka_numba.targets.cpu.text import render as render_flurka
from splat_numba.gen.packed.problem import Operator
from splat_numba.gen.targets.cpu.attention import render_attention
from splat_numba.gen.targets.cpu.packed import render_packed
from splat_numba.gen.targets.cpu.packed_plan import PackedPlan, rows_only
from splat_numba.gen.targets.sm90.attention import render_attention as render_sm90
from splat_numba.runtime.cache import digest
from splat_numba.runtime.cache.digest import digest_of, modules_of
from splat_numba.runtime.cache.entry import CacheEntry
from tests.flurka.gpu.composed.test_plan import texts as simt_texts
from tests.flurka.targets.cpu.plans import KINDS, WANTS, plan_of
from tests.flurka.targets.sm90.test_build import PROBLEMS
from tests.gen.golden_plans import GOLDEN as CPU_PLANS
from tests.gen.golden_plans import golden_plan
from tests.gen.sm90_traits import GOLDEN as SM90_TRAITS
from tests.import_layers import REPOSITORY, exists, imports_of

OURS = ("splat_numba", "flurka_numba")


def packed_plans():
    for operator, dtype, regular in itertools.product(get_args(Operator), ("float32", "float16"), (0, 1)):
        plan = PackedPlan(operator, dtype, 0 if rows_only(operator) else 20, bool(regular), 1, bool(regular), 8, 12)
        yield plan
        if not plan.rows_only:
            yield replace(plan, regular=False, contiguous=True, shared_rows=4)


TEXTS = {
    "attention on a CPU": lambda: (render_attention(golden_plan(name)) for name in CPU_PLANS),
    "packed operators": lambda: map(render_packed, packed_plans()),
    "flurka on a CPU": lambda: (render_flurka(plan_of(*kind, wants=w)) for kind in KINDS for w in WANTS[::4]),
    "attention on Hopper": lambda: map(render_sm90, SM90_TRAITS.values()),
    "flurka's stages on Hopper": lambda: (
        stage.text.render() for one in PROBLEMS.values() for stage in forward_plan(one, 132).stages
    ),
    "float32 on a GPU": lambda: (one.render() for one in simt_texts()),
}


def file_of(name):
    path = REPOSITORY.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_by(text):
    """What a text imports of ours, and what that imports, found by another way: all of their syntax trees."""
    waiting, found = set(), set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            waiting |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            inner = {f"{node.module}.{one.name}" for one in node.names}
            waiting |= {name for name in inner if exists(name)} or {node.module}
    while waiting:
        name = waiting.pop()
        if name.split(".")[0] in OURS and name not in found:
            found.add(name)
            waiting |= imports_of_module(name)
    return found


@cache
def imports_of_module(name):
    return imports_of(file_of(name))


@pytest.mark.parametrize("kind", TEXTS)
def test_all_that_a_text_imports_is_in_its_digest(kind):
    met = set()
    for text in TEXTS[kind]():
        assert set(modules_of(text)) == imported_by(text) != set()
        met |= set(modules_of(text))
    if kind == "flurka on a CPU":
        assert "flurka_numba.cpu.intrinsics" in met


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of three modules in the place of ours, and a text that imports them."""
    folder = tmp_path / "invented"
    (folder / "deep").mkdir(parents=True)
    for name in ("__init__", "deep/__init__"):
        (folder / f"{name}.py").write_text("")
    (folder / "first.py").write_text("from . import second\n")
    (folder / "second.py").write_text("def work():\n    from invented.deep.third import value\n    return value\n")
    (folder / "deep" / "third.py").write_text("value = 1\n")
    (folder / "other.py").write_text("value = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(digest, "PACKAGES", ("invented",))
    forget()
    yield folder
    forget()


def forget():
    for function in vars(digest).values():
        if hasattr(function, "cache_clear"):
            function.cache_clear()


WANTED = ("invented.deep.third", "invented.first", "invented.second")
TEXT = "import math\nfrom invented.first import second\n"


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    "text",
    [
        TEXT,
        "import invented.first as one\n",
        "from invented import first\n",
        "from invented import (\n    first,\n)\n",
        "from \\\n    invented.first import second\n",
        "x = 1; import invented.first\n",
        "def late():\n    from invented.first import second\n    return second\n",
        '"""from here on one could import more"""\nfrom invented.first import second  # import of names\n',
    ],
)
def test_every_form_of_import_is_seen(text):
    assert set(modules_of(text)) >= set(WANTED)
    assert "invented.other" not in modules_of(text)
    assert "invented.first" not in sys.modules  # nothing is imported


@pytest.mark.parametrize("changed", ["first", "second", "deep/third"])
def test_a_changed_module_changes_the_digest(package, changed):
    before = digest_of(TEXT)
    forget()
    assert digest_of(TEXT) == before
    with (package / f"{changed}.py").open("a") as file:
        file.write("\nvalue = 2\n")
    forget()
    assert digest_of(TEXT) != before


def test_a_changed_module_that_is_not_imported_changes_nothing(package):
    before = digest_of(TEXT)
    (package / "other.py").write_text("value = 3\n")
    forget()
    assert digest_of(TEXT) == before


def test_modules_without_their_texts_are_told_by_their_code(package):
    def compile_all():
        for file in package.rglob("*.py"):
            py_compile.compile(str(file), cfile=str(file.with_suffix(".pyc")))
        forget()

    compile_all()
    third = (package / "deep" / "third.py").read_text()
    for file in list(package.rglob("*.py")):
        file.unlink()
    forget()
    before = digest_of(TEXT)
    (package / "deep" / "third.py").write_text(third.replace("1", "2"))
    compile_all()
    (package / "deep" / "third.py").unlink()
    forget()
    assert digest_of(TEXT) != before


def test_modules_that_cannot_be_read_mean_no_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(digest, "PACKAGES", ("sealed",))
    forget()
    monkeypatch.setattr(digest, "_spec", lambda name: ModuleSpec(name, None, is_package=True))
    with pytest.warns(RuntimeWarning, match="the modules of sealed are neither text nor files"):
        assert CacheEntry.of(tmp_path, "name", "import sealed\n", "") is None
    monkeypatch.undo()
    forget()
