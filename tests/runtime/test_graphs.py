"""Dynamo is told once of each package, when it is there; test_torch_arrays.py runs torch.compile itself."""

import sys
from types import SimpleNamespace

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
    assert sorted(told) == ["flurka_numba", "llvmlite", "numba", "numba_cuda", "splat_numba"]


def test_a_trace_that_comes_here_stops():
    assert graphs.stay_outside_graphs._torchdynamo_disable
