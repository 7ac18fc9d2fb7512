"""The short way from a text to machine code: answers as of Numba's own, nothing left behind, and what it refuses."""

import gc
import pickle

import numpy as np
import pytest
from numba import types
from numba.core.registry import cpu_target

from splat_numba.errors import CompileError
from splat_numba.runtime import compile as compiling
from splat_numba.runtime import machine_code, pipeline
from splat_numba.runtime.cache import digest
from splat_numba.runtime.compile import compile_source
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

SIGNATURE = types.int64(types.int64, types.Array(types.float64, 1, "C"))
SIGNATURES = {"first": SIGNATURE, "second": SIGNATURE}
# Functions within functions, two entries that share them, arrays, tuples, branches, and one that is always inlined.
TEXT = """
import math

import numpy as np
from numba import njit

from splat_numba.runtime.halves import to_bfloat16


@njit(forceinline=True)
def squared(x):
    return x * x


@njit(nogil=True)
def inner(count, out):
    scratch = np.empty(count, np.float64)
    pair = (0.5, 0.25)
    for i in range(count):
        scratch[i] = squared(np.float64(i)) * pair[0] + math.log(i + pair[1])
        out[min(i, out.size - 1)] += scratch[i] if i % 3 else -scratch[i]
    return count - 1


@njit(nogil=True, error_model="numpy")
def first(count, out):
    return inner(count, out) + np.int64(to_bfloat16(np.float32(count)))


@njit(nogil=True, error_model="numpy")
def second(count, out):
    out[0] = inner(count, out) // 2
    return inner(count + 1, out)
"""


def compiled(text, signatures=SIGNATURES):
    return compile_source(KernelSource.of("pipeline", text), signatures, Settings(cache=False))


def answers(found):
    out = np.zeros(7)
    return [found.functions[name](9, out) for name in found.functions], out.tolist()


def no_short_way(*_):
    raise NotImplementedError


def test_it_gives_the_bits_of_numba_s_own_way(monkeypatch):
    short = []
    compile_module = machine_code.compile_module

    def noted(*given):
        short.append(compile_module(*given))
        return short[-1]

    monkeypatch.setattr(machine_code, "compile_module", noted)
    here = answers(compiled(TEXT))
    assert set(short[0]) == {"first", "second"}  # it was taken
    monkeypatch.setattr(pipeline, "compile_entry", no_short_way)
    assert answers(compiled(TEXT)) == here
    assert short[1] is None


def test_what_the_passes_left_out_would_do_is_numba_s_again():
    """As a hand-edited text may ask for: a closure, an array expression, and a function that calls itself."""
    text = """
import numpy as np
from numba import njit


@njit
def factorial(n):
    return 1 if n < 2 else n * factorial(n - 1)


@njit
def first(count, out):
    def more(x):
        return x + count
    out[:] = 2.0 * out + np.sqrt(out) + more(1)
    return factorial(count)
"""
    found = compiled(text, {"first": SIGNATURE})
    assert answers(found) == ([362880], [10.0] * 7)


def test_a_text_at_fault_gets_numba_s_message():
    with pytest.raises(CompileError, match=r"(?s)does not compile: .*Unknown attribute 'nonsense'.*report the file"):
        compiled(TEXT.replace("out.size", "out.nonsense"))


def test_numba_remembers_no_function_of_a_kernel_that_is_gone():
    compiled(TEXT)
    gc.collect()
    before = len(cpu_target.target_context._defns)
    compiled(TEXT.replace("pair = (0.5,", "pair = (0.75,"))
    gc.collect()
    assert len(cpu_target.target_context._defns) == before


def test_what_is_stored_is_machine_code_without_llvm_s_module():
    module = KernelSource.of("pipeline", TEXT).load(None)
    codes = machine_code.compile_module(module, SIGNATURES)
    _, kind, (code, names) = pickle.loads(codes["first"])[0]  # noqa: S301 - made here
    machine_code.release(module)
    assert kind == "object"
    assert len(names) < 4000 < len(code)


def test_collections_are_as_they_were_afterwards():
    def none_meanwhile():
        with pipeline.section(), pipeline.section():
            assert gc.get_threshold()[0] == pipeline.YOUNG_OBJECTS
            raise NotImplementedError

    before = gc.get_threshold()
    with pytest.raises(NotImplementedError):
        none_meanwhile()
    assert gc.get_threshold() == before
    gc.set_threshold(0)  # off: and stays off
    try:
        with pipeline.section():
            assert gc.get_threshold()[0] == 0
        assert gc.get_threshold()[0] == 0
    finally:
        gc.set_threshold(*before)


def test_an_entry_is_named_after_the_pipeline_too(tmp_path, monkeypatch):
    source = KernelSource.of("pipeline", TEXT)
    first = compiling._entry(tmp_path, source, SIGNATURES, 0)
    contents = digest._contents
    monkeypatch.setattr(digest, "_contents", lambda name: "changed" if name.endswith("pipeline") else contents(name))
    digest.digest_of.cache_clear()
    try:
        assert compiling._entry(tmp_path, source, SIGNATURES, 0).path != first.path
    finally:
        digest.digest_of.cache_clear()
