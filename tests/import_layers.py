"""What modules import, read from their text; and the rule that imports go down a package's layers only."""

import ast
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent


def check_layers(root, path, layers, besides=frozenset()):
    """Raise AssertionError if the module root / path imports a part of its own package that is not below its own.

    layers: a number for each part of the package in the folder root; besides: full names that it may import anyway.
    """
    package = ".".join(root.relative_to(REPOSITORY).parts)
    here = part_of(package, f"{package}." + ".".join(path.with_suffix("").parts))
    assert here in layers, f"{path}: give the new part {here!r} a place in LAYERS and in docs"
    for name in imports_of(root / path) - besides:
        if f"{name}.".startswith(f"{package}."):
            there = part_of(package, name)
            assert there in layers, f"{path} imports {name}: give the new part {there!r} a place in LAYERS"
            assert there == here or layers[there] < layers[here], f"{path} imports {name}: {here} may not know {there}"


def part_of(package, name):
    """Of 'splat_numba', 'splat_numba.gen.plans' -> 'gen'; the package itself -> '__init__'."""
    return [*name.removeprefix(package).split("."), "__init__"][1]


def imports_of(path, *, lazily=True):
    """Full names of all that a file imports; with lazily=False only what its import itself runs."""
    tree = ast.parse(path.read_text())
    package = path.relative_to(REPOSITORY).parts[:-1]
    names = set()
    nodes = list(ast.walk(tree)) if lazily else list(eager(tree))
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = list(package[: len(package) - node.level + 1]) if node.level else []
            module = ".".join(base + ([node.module] if node.module else []))
            # `from splat_numba import api` imports the module api: resolve it where the name is one of our modules
            inner = {f"{module}.{alias.name}" for alias in node.names}
            ours = {name for name in inner if exists(name)}
            names |= ours | ({module} if len(ours) < len(inner) else set())
    return names


def exists(name):
    """Whether a full name is a module of this repository."""
    path = REPOSITORY.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or path.is_dir()


def eager(node):
    """Every node outside functions and `if TYPE_CHECKING`."""
    for child in ast.iter_child_nodes(node):
        typing_only = isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test)
        if not (typing_only or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)):
            yield child
            yield from eager(child)


def python(code):
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
