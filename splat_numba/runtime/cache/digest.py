"""What a generated text's machine code depends on beside the text: the modules of ours that it imports, and theirs.

The list follows from the imports themselves, so no module can be forgotten. Files are read, never imported: a kernel
that is on disk would wait 250 ms for Numba to name its entry.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache, lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import find_spec
from pathlib import Path
from textwrap import dedent

PACKAGES = ("splat_numba", "flurka_numba")
WORD = re.compile(r"import\b")  # with \b before it, 50 times as slow
# The statement around it, from the start of its line to the closing bracket: 0.1 ms for a text, where parsing takes 10.
STATEMENT = re.compile(r"[ \t]*(?:from[ \t]+[\w.]+[ \t]+)?import\b[^\n(]*(?:\([^)]*\)[^\n]*)?")


@lru_cache(maxsize=1024)
def digest_of(text: str) -> str:
    """Changes with every module of our packages that the text imports, directly or not. Raises OSError where their
    texts cannot be had.
    """
    digest = hashlib.sha256()
    for name in modules_of(text):
        digest.update(f"{name} {_contents(name)}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def modules_of(text: str) -> tuple[str, ...]:
    """Full names of the modules of our packages that a text imports, and of those that these import; sorted."""
    found: set[str] = set()
    waiting = set(_imports(text, ""))
    while waiting:
        name = waiting.pop()
        found.add(name)
        waiting |= set(_imports_of_module(name)) - found
    return tuple(sorted(found))


def _imports(text: str, package: str) -> Iterator[str]:
    """Names of our modules in a text's import statements; package: what relative ones start from."""
    for node in ast.walk(_import_statements(text)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if _ours(one.name))
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            if _ours(base):
                inner = [f"{base}.{one.name}" for one in node.names]
                modules = [name for name in inner if _spec(name) is not None]
                yield from modules
                if len(modules) < len(inner):  # some names are of the module itself
                    yield base


def _ours(name: str) -> bool:
    return name.partition(".")[0] in PACKAGES


def _import_statements(text: str) -> ast.Module:
    """The import statements alone; all of a text that has the word where no line begins with one."""
    starts = {text.rfind("\n", 0, word.start()) + 1 for word in WORD.finditer(text)}
    found = [STATEMENT.match(text, start) for start in sorted(starts)]
    with suppress(SyntaxError):
        if None not in found:
            return ast.parse("\n".join(dedent(one[0]) for one in found if one))
    try:
        return ast.parse(text)
    except SyntaxError:
        return ast.parse("")  # compiling it will say what is wrong


@cache
def _imports_of_module(name: str) -> tuple[str, ...]:
    spec, source = _spec(name), _source(name)
    if spec is None or source is None:
        return ()
    package = name if spec.submodule_search_locations is not None else name.rpartition(".")[0]
    return tuple(_imports(source, package))


@cache
def _contents(name: str) -> str:
    """The hash of a module's text, or of all modules of its package where it is installed without texts."""
    if (source := _source(name)) is not None:
        return hashlib.sha256(source.encode()).hexdigest()
    return _compiled_package(name.partition(".")[0]) if _spec(name) else "missing"


def _source(name: str) -> str | None:
    spec = _spec(name)
    get_source = getattr(spec.loader, "get_source", None) if spec else None
    return get_source(name) if get_source else None


@cache
def _spec(name: str) -> ModuleSpec | None:
    """Where a module is, None if nowhere. (importlib.util.find_spec would import what is left of the last dot.)"""
    parent = name.rpartition(".")[0]
    if not parent:
        return find_spec(name)
    package = _spec(parent)
    places = package.submodule_search_locations if package else None
    return PathFinder.find_spec(name, places) if places is not None else None


@cache
def _compiled_package(package: str) -> str:
    spec = _spec(package)
    folders = (spec.submodule_search_locations or ()) if spec else ()
    files = [file for folder in folders for file in sorted(Path(folder).rglob("*.pyc"))]
    if not files:
        raise OSError(f"the modules of {package} are neither text nor files")
    return hashlib.sha256(b"".join(file.read_bytes()[16:] for file in files)).hexdigest()  # 16: the time of compiling
