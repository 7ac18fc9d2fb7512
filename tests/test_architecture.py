"""Who may import whom, and what an import costs: the layers of docs/architecture.md, enforced."""

import sys
from pathlib import Path

import pytest

import splat_numba
from tests.import_layers import check_layers, imports_of, python

ROOT = Path(splat_numba.__file__).parent

# A module imports only from its own part and from parts with a lower number. A new top-level part needs a line here.
LAYERS = {
    "errors": 0,
    "version": 0,
    "memory": 1,
    "settings": 1,
    "plain": 1,
    "signatures": 1,
    "pictures": 2,
    "reference_arguments": 2,
    "reference": 3,
    "formats": 3,
    "gen": 4,
    "emulator": 5,
    "runtime": 6,
    "arguments": 7,
    "executors": 8,
    "bridges": 9,
    "kernel": 10,
    "api": 11,
    "gradients": 12,
    "packed": 12,
    "packed_gradients": 12,
    "warm_jobs": 12,
    "warm": 13,
    "testing": 13,
    "integrations": 14,
    "cli": 15,
    "__init__": 16,
    "__main__": 16,
}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
HEAVY = ["numba.cuda", "torch", "jax", "transformers", "matplotlib", "hypothesis", "scipy", "cupy"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_the_layers_only(path):
    check_layers(ROOT, path, LAYERS)


PURE = {"formats", "gen", "errors.py", "plain.py", "signatures.py", "reference.py", "reference_arguments.py"}


@pytest.mark.parametrize("path", [p for p in MODULES if p.parts[0] in PURE], ids=str)
def test_formats_gen_and_the_oracle_need_numpy_and_the_standard_library_only(path):
    allowed = {"splat_numba", "numpy", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imports_of(ROOT / path, lazily=False)} <= allowed
    # SciPy may appear inside the one function that converts to it; Numba not even there.
    assert {name.split(".")[0] for name in imports_of(ROOT / path)} <= allowed | {"scipy"}


TARGETS = "splat_numba.gen.targets"
BESIDE_TARGETS = [path for path in MODULES if path.parts[0] == "gen" and path.parts[1] != "targets"]
OF_TARGETS = [path for path in MODULES if path.parts[:2] == ("gen", "targets") and len(path.parts) > 3]


@pytest.mark.parametrize("path", BESIDE_TARGETS, ids=str)
def test_decisions_know_no_target(path):
    assert [name for name in imports_of(ROOT / path) if name.startswith(TARGETS)] == []


@pytest.mark.parametrize("path", OF_TARGETS, ids=str)
def test_targets_do_not_know_each_other(path):
    known = [name for name in imports_of(ROOT / path) if name.startswith(f"{TARGETS}.")]
    allowed = tuple(f"{TARGETS}.{one}" for one in (path.parts[2], "target", "gradients", "gpu"))
    assert [name for name in known if not name.startswith(allowed)] == []


# The same within gen: a folder imports from its own modules and from folders with a lower number.
GEN_LAYERS = {
    "language": 0,
    "schedules": 1,
    "packed": 1,
    "plans": 1,
    "rows": 2,
    "boxes": 2,
    "shown": 3,
    "targets": 4,
    "__init__": 5,
}
IN_GEN = [path.relative_to("gen") for path in MODULES if path.parts[0] == "gen"]
# A Plan draws itself: what knows all kinds of passes is imported when a picture is asked for, not before.
WHEN_ASKED = {Path("plans", "plan.py"): {"splat_numba.gen.shown.picture"}}


@pytest.mark.parametrize("path", IN_GEN, ids=str)
def test_imports_go_down_the_folders_of_gen_only(path):
    late = WHEN_ASKED.get(path, set())
    check_layers(ROOT / "gen", path, GEN_LAYERS, late)
    assert late <= imports_of(ROOT / "gen" / path), "no longer imported: take it from WHEN_ASKED"
    assert not late & imports_of(ROOT / "gen" / path, lazily=False)


def test_gen_has_folders_only():
    assert [str(path) for path in IN_GEN if len(path.parts) == 1] == ["__init__.py"]


OF_PACKED = {Path("executors", "cpu", "packed.py")}  # a CPU's packed operators have a text each, which no plan chooses
ABOVE_GEN = [path for path in MODULES if LAYERS[path.with_suffix("").parts[0]] > LAYERS["gen"]]


def test_above_gen_targets_are_known_by_what_the_registry_gives():
    doors = tuple(f"{TARGETS}.{one}" for one in ("registry", "target", "gradients", "packed"))
    known = {path: [name for name in imports_of(ROOT / path) if name.startswith(f"{TARGETS}.")] for path in ABOVE_GEN}
    others = {path for path, names in known.items() if any(not name.startswith(doors) for name in names)}
    assert others <= OF_PACKED


def test_hypothesis_is_imported_by_the_strategies_only():
    users = {path for path in MODULES if any(name.split(".")[0] == "hypothesis" for name in imports_of(ROOT / path))}
    assert users == {Path("testing", "strategies.py"), Path("testing", "pattern_strategies.py")}


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in MODULES}
    assert {str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()} == set()


def test_importing_the_package_loads_nothing_heavy():
    assert python(f"import sys, splat_numba; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_formats_and_gen_import_where_numba_is_missing():
    names = [
        "splat_numba." + ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        for path in MODULES
        if path.parts[0] in {"formats", "gen"}
    ]
    python(f"import importlib, sys\nsys.modules['numba'] = None\nfor name in {names}: importlib.import_module(name)")


def test_testing_works_without_hypothesis_and_says_what_to_install():
    code = """
import sys
sys.modules["hypothesis"] = None
from splat_numba.testing import Problem, check_attention, tolerance
try:
    from splat_numba.testing import problems
except ImportError as error:
    print(error)
"""
    assert python(code) == "splat_numba.testing.problems needs Hypothesis: python -m pip install hypothesis"
