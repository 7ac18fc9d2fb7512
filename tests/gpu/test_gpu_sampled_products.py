"""`sddmm` and `spmm` on any CSR pattern, against cuSPARSE: empty rows, hubs, columns that came in any order.

tests/ops/test_sampled_products.py has the same against SciPy. cuSPARSE is called as the benchmarks call it.
"""

import numpy as np
import pytest

import splat_numba as splat
from tests.documentation import ROOT

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
sparse = pytest.importorskip("scipy.sparse", reason="SciPy is not installed")

pytestmark = pytest.mark.gpu
DEVICE, HEADS, ROWS, COLUMNS, DIM = "cuda", 3, 700, 500, 64
BOUND = {"float32": {"rtol": 1e-4, "atol": 1e-4}, "float64": {"rtol": 1e-11, "atol": 1e-11}}


@pytest.fixture
def cusparse(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import gpu_cusparse

    return gpu_cusparse


def graph():
    """A CSR array whose rows have no pairs, a few or most of them, each row's columns in any order."""
    rng = np.random.default_rng(5)
    density = rng.choice([0.0, 0.01, 0.05, 0.9], ROWS, p=[0.1, 0.5, 0.38, 0.02])
    kept = rng.random((ROWS, COLUMNS)) < density[:, None]
    rows, columns = np.nonzero(kept)
    order = np.lexsort((rng.random(rows.size), rows))
    indptr = np.concatenate(([0], np.cumsum(kept.sum(1))))
    return sparse.csr_array((np.ones(rows.size), columns[order], indptr), shape=kept.shape)


def arrays(dtype, *sizes):
    rng = np.random.default_rng(6)
    return [torch.from_numpy(rng.standard_normal((HEADS, n, DIM)).astype(dtype)).to(DEVICE) for n in sizes]


def indices(*csr):
    return [torch.from_numpy(one.astype(np.int32)).to(DEVICE) for one in csr]


@pytest.mark.parametrize("dtype", BOUND)
def test_products_are_cusparses(cusparse, dtype):
    acsr = splat.ACSR.from_scipy(graph())
    indptr, columns = acsr.to_csr()
    q, k, v, w = arrays(dtype, ROWS, COLUMNS, COLUMNS, ROWS)
    packed = splat.sddmm(q, k, acsr, scale=0.5)
    of_csr = acsr.values_to_csr(packed.cpu().numpy())
    wanted = cusparse.sddmm(q, k, *indices(indptr, columns), 0.5)(0)
    np.testing.assert_allclose(of_csr, wanted.cpu().numpy(), **BOUND[dtype])
    theirs = torch.from_numpy(of_csr).to(DEVICE)
    wanted = cusparse.spmm(theirs, v, *indices(indptr, columns))(0)
    np.testing.assert_allclose(splat.spmm(packed, v, acsr).cpu(), wanted.cpu(), **BOUND[dtype])
    turned = sparse.csr_array((np.arange(acsr.nnz), columns, indptr), shape=acsr.shape).T.tocsr()
    wanted = cusparse.spmm(theirs[:, turned.data].contiguous(), w, *indices(turned.indptr, turned.indices))(0)
    np.testing.assert_allclose(splat.spmm(packed, w, acsr, transpose=True).cpu(), wanted.cpu(), **BOUND[dtype])
