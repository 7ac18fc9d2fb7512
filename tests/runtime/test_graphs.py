"""Dynamo is told once of each package, when it is there; test_torch_arrays.py runs torch.compile itself."""

import sys
from pathlib import Path
from types import SimpleNamespace

import flurka_numba
import splat_numba
from splat_numba.runtime import graphs


def test_dynamo_is_told_once_and_only_where_it_is(monkeypatch):
    told = []
    monkeypatch.setattr(graphs, "_left_alone", set())
    monkeypatch.setitem(sys.modules, "torch._dynamo.trace_rules", None)
    graphs.stay_outside_graphs("flurka_numba")
    monkeypatch.setitem(sys.modules, "torch._dynamo.trace_rules", SimpleNamespace())  # half imported
    graphs.stay_outside_graphs("flurka_numba")
    monkeypatch.setitem(sys.modules, "torch._dynamo.trace_rules", SimpleNamespace(add=told.append))
    for package in ("splat_numba", "flurka_numba", "splat_numba"):
        graphs.stay_outside_graphs(package)
    assert len(set(told)) == len(told)
    assert {"flurka_numba.cpu", "llvmlite", "numba", "numba_cuda", "splat_numba.runtime", "splat_numba.packed"} <= set(
        told
    )


def test_what_stands_on_the_way_to_the_operator_is_read_and_nothing_else_is():
    read = set()
    for package in (splat_numba, flurka_numba):
        left_alone = set(graphs._unread(package.__name__, package.__path__))
        modules = every_module(package.__name__)
        read |= {name for name in modules if not any(is_below(name, one) for one in left_alone)}
    assert read == graphs._READ | FOLDERS


FOLDERS = {f"splat_numba.{folder}" for folder in ("bridges", "bridges.torch", "formats", "integrations")}
FOLDERS |= {"flurka_numba.bridges", "flurka_numba.bridges.torch"}


def every_module(package):
    root = Path(sys.modules[package].__file__).parent
    paths = [path.relative_to(root.parent).with_suffix("") for path in root.rglob("*.py")]
    return {".".join(path.parts).removesuffix(".__init__") for path in paths} - {package}


def is_below(name, part):
    return name == part or name.startswith(f"{part}.")


def test_a_trace_that_comes_here_stops():
    assert graphs.stay_outside_graphs._torchdynamo_disable
