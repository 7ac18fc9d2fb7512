"""`sddmm` and `spmm` on any CSR pattern, against SciPy: columns in any order, empty rows, any density."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import splat_numba as splat
from splat_numba.errors import ArgumentError, FormatError, FormatTypeError
from tests.ops.packed_cases import DIM, stored

sparse = pytest.importorskip("scipy.sparse")


def shuffled(matrix, rng):
    """The same CSR matrix with every row's columns in another order."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((rng.random(rows.size), rows))
    return sparse.csr_array((matrix.data[order], matrix.indices[order], matrix.indptr), shape=matrix.shape)


@st.composite
def matrices(draw):
    """CSR arrays without zeros or repeats, sorted or not, some rows empty."""
    rows, cols = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    rng = np.random.default_rng(draw(st.integers(0, 999)))
    kept = rng.random((rows, cols)) < draw(st.sampled_from([0.0, 0.03, 0.2, 0.9, 1.0]))
    kept[rng.random(rows) < 0.3] = False
    kept = stored(kept, rows, cols).to_dense()  # of few kernels
    matrix = sparse.csr_array(np.where(kept, rng.standard_normal(kept.shape), 0).astype(np.float32))
    return shuffled(matrix, rng) if draw(st.booleans()) else matrix, rng


@settings(max_examples=40)
@given(matrices())
def test_products_are_scipys(drawn):
    matrix, rng = drawn
    rows, cols = matrix.shape
    acsr = splat.ACSR.from_scipy(matrix)
    q, k, v, dout = (rng.standard_normal((n, DIM), dtype=np.float32) for n in (rows, cols, cols, rows))
    values = acsr.values_from_csr(matrix.data, matrix.indptr, matrix.indices)
    out, vjp = splat.spmm_vjp(values, v, acsr)
    assert_allclose(out, matrix @ v, rtol=1e-4, atol=1e-5)
    sampled = matrix.astype(bool).multiply(q @ k.T).tocsr()  # SDDMM: what is dense, where the pattern is
    sampled.sort_indices()
    dvalues, dv = vjp(dout)
    assert_allclose(dv, matrix.T @ dout, rtol=1e-4, atol=1e-5)
    indptr, indices = acsr.to_csr()
    for got, left, right in ((splat.sddmm(q, k, acsr), q, k), (dvalues, dout, v)):
        wanted = (left @ right.T)[np.repeat(np.arange(rows), np.diff(indptr)), indices]
        assert_allclose(acsr.values_to_csr(got), wanted, rtol=1e-4, atol=1e-5)
    assert sampled.nnz <= acsr.nnz  # a product may be 0


@given(matrices())
@settings(max_examples=40)
def test_values_go_to_the_packed_order_and_back(drawn):
    matrix, rng = drawn
    acsr = splat.ACSR.from_scipy(matrix)
    several = rng.standard_normal((2, 3, matrix.nnz))
    assert_array_equal(acsr.values_to_csr(acsr.values_from_csr(several)), several)
    packed = acsr.values_from_csr(matrix.data, matrix.indptr, matrix.indices)
    matrix.sort_indices()
    assert_array_equal(acsr.values_to_csr(packed), matrix.data)


def test_where_runs_interleave_the_orders_differ():
    acsr = splat.ACSR.from_pattern(splat.dilated(4, 5) | splat.strided(7), 60, 60)
    assert not np.array_equal(acsr.columns(), acsr.to_csr()[1])
    values = np.arange(acsr.nnz)
    assert not np.array_equal(acsr.values_from_csr(values), values)
    assert_array_equal(acsr.values_from_csr(values, *acsr.to_csr()), acsr.values_from_csr(values))


def test_a_large_graph_is_scipys():
    """Enough rows for groups and for several ranges; 64-bit indices, as SciPy has beyond 2**31 pairs."""
    rng = np.random.default_rng(0)
    matrix = sparse.random_array((3000, 2000), density=0.01, format="csr", rng=rng, dtype=np.float32)
    matrix = shuffled(matrix, rng)
    acsr = splat.ACSR.from_scipy(matrix)
    v = rng.standard_normal((2000, DIM), dtype=np.float32)
    values = acsr.values_from_csr(matrix.data, matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64))
    assert_allclose(splat.spmm(values, v, acsr), matrix @ v, rtol=1e-4, atol=1e-5)


PAIRS = splat.from_csr([0, 2, 2, 3], [0, 2, 1], (3, 3))
REFUSED = {
    "too few values": (
        lambda: PAIRS.values_from_csr(np.zeros(2)), ArgumentError,
        "values must have shape (..., nnz) with nnz = 3, got (2,); pass the data of a matrix with just the mask's "
        "pairs.",
    ),
    "half of a matrix": (
        lambda: PAIRS.values_from_csr(np.zeros(3), [0, 2, 2, 3]), ArgumentError,
        "indptr and indices must be given together, got one; pass both, or neither.",
    ),
    "another pair": (
        lambda: PAIRS.values_from_csr(np.zeros(3), [0, 2, 2, 3], [2, 1, 1]), ArgumentError,
        "indices must be the mask's pairs, each once, got (0, 1), which the mask does not keep; build the mask of this "
        "matrix, after its sum_duplicates().",
    ),
    "a pair twice": (
        lambda: PAIRS.values_from_csr(np.zeros(3), [0, 2, 2, 3], [2, 2, 1]), ArgumentError,
        "indices must be the mask's pairs, each once, got (0, 2), more than once; build the mask of this matrix, after "
        "its sum_duplicates().",
    ),
    "a column outside": (
        lambda: PAIRS.values_from_csr(np.zeros(3), [0, 2, 2, 3], [2, 3, 1]), FormatError,
        "row 0: column 3 is not in [0, 3); correct indices or the shape.",
    ),
    "indices that are none": (
        lambda: PAIRS.values_from_csr(np.zeros(3), [0, 2, 2, 3], [2.0, 0.0, 1.0]), FormatTypeError,
        "indices must be a 1-D array of integers, got dtype float64 and shape (3,); pass "
        "`indices.astype(numpy.int64)`.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_with_this_message(name):
    call, kind, message = REFUSED[name]
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
