"""Pages of results say what was measured: their tables are what the benchmarks make of the numbers beside them."""

import importlib
import json
import sys

import pytest

from splat_numba.formats import patterns
from tests.documentation import ROOT

BENCHMARKS = ROOT / "benchmarks"
RESULTS = BENCHMARKS / "results"
# The script, what makes the table, and of which part of the numbers; "" is all of them.
TABLES = {
    "cpu_attention": ("cpu_attention", "table", "rows"),
    "cpu_fused": ("cpu_fused", "table", "rows"),
    "cpu_gradients": ("cpu_gradients", "table", "rows"),
    "cpu_packed": ("cpu_packed", "table", "rows"),
    "flurka_cpu": ("flurka", "report", ""),
}
OF_TORCH = {
    "frameworks": ("frameworks", "report", ""),
    "torch_gpu": ("torch_gpu", "report", ""),
    "gpu_gradients": ("gpu_gradients", "report", ""),
    "gpu_attention": ("gpu_report", "report", ""),
    "gpu_attention_all_peers": ("gpu_report", "report", ""),
    "flurka_gpu": ("flurka_gpu_report", "report", ""),
}


def module_of(script, monkeypatch):
    """A benchmark, imported."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    before = {*sys.modules}
    try:
        return importlib.import_module(script)
    finally:
        for other in {*sys.modules} - before:  # names such as `tables`, which are none of ours elsewhere
            if str(BENCHMARKS) in str(getattr(sys.modules[other], "__file__", "")):
                del sys.modules[other]


def made(name, script, function, part, monkeypatch):
    """The page, and what the script makes of the numbers beside it."""
    make = getattr(module_of(script, monkeypatch), function)
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return (RESULTS / f"{name}.md").read_text(encoding="utf-8"), make(found[part] if part else found)


@pytest.mark.parametrize("name", TABLES)
def test_a_page_has_the_tables_of_its_numbers(name, monkeypatch):
    page, tables = made(name, *TABLES[name], monkeypatch)
    assert tables in page


@pytest.mark.parametrize("name", OF_TORCH)
def test_a_page_of_a_script_that_needs_torch_is_made_of_its_numbers(name, monkeypatch):
    pytest.importorskip("torch", reason="torch is not installed")
    page, whole = made(name, *OF_TORCH[name], monkeypatch)
    assert page == whole


def test_the_bytes_of_every_pattern_stand_on_their_page(monkeypatch):
    """Those of formats; what our kernels' tables take changes with them."""
    metadata = module_of("metadata", monkeypatch)
    assert {name.partition("(")[0] for name in metadata.PATTERNS} == {*patterns.__all__} - {"Pattern"}
    lines = (RESULTS / "metadata.md").read_text(encoding="utf-8").splitlines()
    page = {tuple(row[:2]): row for row in ([cell.strip() for cell in line.split(" | ")] for line in lines)}
    for name in metadata.PATTERNS:
        row = page[f"| {name}", "1024"]
        found = metadata.line(name, 1024)
        assert [*row[1:4], *row[5:]] == [*found[1:4], *found[5:-1], f"{found[-1]} |"], name
