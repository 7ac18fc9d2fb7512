"""Who may import whom, and what an import costs: the layers of docs/architecture.md, enforced."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import splat_numba

ROOT = Path(splat_numba.__file__).parent

# A module imports only from its own part and from parts with a lower number. A new top-level part needs a line here.
LAYERS = {
    "errors": 0,
    "settings": 1,
    "reference": 1,
    "formats": 2,
    "gen": 3,
    "masks": 3,
    "emulator": 4,
    "runtime": 5,
    "operands": 6,
    "executor": 6,
    "cpu_kernel": 7,
    "gpu_call": 7,
    "gpu_kernel": 8,
    "gpu_trial": 8,
    "gpu_tuning": 9,
    "emulated_kernel": 9,
    "kernel": 10,
    "api": 11,
    "packed": 12,
    "testing": 13,
    "integrations": 14,
    "cli": 15,
    "__init__": 16,
    "__main__": 16,
}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
HEAVY = ["numba.cuda", "torch", "jax", "matplotlib", "hypothesis", "scipy", "cupy"]


def part_of(name: str) -> str:
    """'splat_numba.gen.plan' -> 'gen'; the package itself -> '__init__'."""
    return [*name.split("."), "__init__"][1]


def imported(path: Path, *, lazily: bool = True) -> set[str]:
    """Full names of all that a file imports; with lazily=False only what its import itself runs."""
    tree = ast.parse((ROOT / path).read_text())
    package = ["splat_numba", *path.parts[:-1]]
    names = set()
    nodes = list(ast.walk(tree)) if lazily else list(eager(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            # `from splat_numba import api` imports the module api: resolve it where the name is one of our modules
            inner = {f"{module}.{alias.name}" for alias in node.names}
            ours = {name for name in inner if exists(name)}
            names |= ours | ({module} if len(ours) < len(inner) else set())
    return names


def exists(name: str) -> bool:
    path = ROOT.joinpath(*name.split(".")[1:])
    return name.startswith("splat_numba.") and (path.with_suffix(".py").exists() or path.is_dir())


def eager(node: ast.AST):
    """Every node outside functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not (typing_only or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield child
            yield from eager(child)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_the_layers_only(path):
    here = part_of("splat_numba." + ".".join(path.with_suffix("").parts))
    assert here in LAYERS, f"{path}: give the new part {here!r} a place in LAYERS and in docs/architecture.md"
    for name in imported(path):
        if name.split(".")[0] == "splat_numba":
            there = part_of(name)
            assert there in LAYERS, f"{path} imports {name}: give the new part {there!r} a place in LAYERS"
            assert there == here or LAYERS[there] < LAYERS[here], f"{path} imports {name}: {here} may not know {there}"


@pytest.mark.parametrize(
    "path", [p for p in MODULES if p.parts[0] in {"formats", "gen", "errors.py", "reference.py"}], ids=str
)
def test_formats_gen_and_the_oracle_need_numpy_and_the_standard_library_only(path):
    allowed = {"splat_numba", "numpy", *sys.stdlib_module_names}
    assert {name.split(".")[0] for name in imported(path, lazily=False)} <= allowed
    # SciPy may appear inside the one function that converts to it; Numba not even there.
    assert {name.split(".")[0] for name in imported(path)} <= allowed | {"scipy"}


def test_hypothesis_is_imported_by_the_strategies_only():
    users = {path for path in MODULES if any(name.split(".")[0] == "hypothesis" for name in imported(path))}
    assert users == {Path("testing", "strategies.py"), Path("testing", "pattern_strategies.py")}


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in MODULES}
    assert {str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()} == set()


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


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
