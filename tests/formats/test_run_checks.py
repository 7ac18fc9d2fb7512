"""What others made is looked at before a kernel reads by it: run tables, pickles of masks, geometry and patterns."""

import copy
import pickle
from dataclasses import fields

import numpy as np
import pytest

from splat_numba.api import plan
from splat_numba.errors import FormatError, PatternError, SplatError
from splat_numba.formats import pattern_nodes as nodes
from splat_numba.formats import patterns, run_algebra
from splat_numba.formats.acsr import ACSR
from splat_numba.formats.geometry import geometry
from splat_numba.formats.runs import Runs, from_triples

GOOD = {"shape": (3, 8), "row_ptr": [0, 1, 1, 3], "start": [5, 0, 1], "step": [1, 3, 3], "count": [3, 2, 2]}


def table(**change):
    parts = GOOD | change
    return Runs(parts["shape"], *(np.array(parts[name]) for name in ("row_ptr", "start", "step", "count")))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start": [6, 0, 1]}, "row 0: the run start=6, step=1, count=3 does not lie inside the shape"),
        ({"start": [-1, 0, 1]}, "row 0: the run start=-1"),
        ({"start": [5, 0, 2**31 + 1]}, "row 2: the run start=2147483649"),  # int32 would make it 1
        ({"start": [5, 0, 2**32]}, "row 2: the run start=4294967296"),
        ({"step": [1, 3, 2**62]}, "row 2: the run start=1, step=4611686018427387904"),
        ({"step": [-1, 3, 3]}, "row 0: the run start=5, step=-1"),
        ({"step": [0, 3, 3]}, "row 0: the run start=5, step=0"),
        ({"count": [3, 2, 4]}, "row 2: the run start=1, step=3, count=4"),
        ({"count": [3, 2, 0]}, "row 2: the run start=1, step=3, count=0"),
        ({"count": [3, -1, 2]}, "row 2: the run start=0, step=3, count=-1"),
        ({"count": [3, 1, 2]}, "row 2: a run of one column must have step 1"),
        ({"start": [5, 1, 0]}, "row 2: its runs must be sorted by start"),
        ({"start": [5, 1, 1]}, "row 2: the runs from columns 1 and 1 overlap"),
        ({"step": [1, 1, 1]}, "row 2: the runs from columns 0 and 1 overlap"),
        ({"start": [5, 0, 3], "step": [1, 3, 1]}, "row 2: the runs overlap"),
        ({"row_ptr": [0, 2, 1, 3]}, "row 1: row_ptr must not decrease"),
        ({"row_ptr": [0, 1, 3]}, "row_ptr must have rows"),
        ({"row_ptr": [1, 1, 1, 3]}, "row_ptr must have rows"),
        ({"row_ptr": [0, 1, 1, 4]}, "row_ptr must have rows"),
        ({"row_ptr": []}, "row_ptr must have rows"),
        ({"shape": (3, -8)}, "shape must not be negative"),
        ({"shape": (3, 2**62)}, "shape"),
        ({"count": [3, 2]}, "runs must be 1-D arrays"),
        ({"count": [[3, 2, 2]]}, "runs must be 1-D arrays"),
    ],
)
def test_a_malformed_table_makes_no_mask(change, message):
    ACSR(table())
    with pytest.raises(FormatError) as caught:
        ACSR(table(**change))
    assert str(caught.value).startswith(message)
    stored = pickle.dumps(table(**change))
    with pytest.raises(FormatError):
        pickle.loads(pickle.dumps(_Unpickled(pickle.loads(stored))))  # noqa: S301  # our own bytes


class _Unpickled:
    """Pickles as an ACSR of any run table."""

    def __init__(self, runs):
        self.runs = runs

    def __reduce__(self):
        return ACSR, (self.runs,)


def test_lattices_that_meet_far_from_their_starts_are_an_overlap_by_pairs_and_by_columns(monkeypatch):
    apart = from_triples((2, 400), [1, 1], [0, 1], [6, 4], [60, 90])  # even and odd columns
    meeting = Runs((2, 400), [0, 0, 2], [0, 1], [7, 5], [50, 70])  # 21 is in both
    for limit in (run_algebra.PAIR_COLUMNS, 1):
        monkeypatch.setattr("splat_numba.formats.run_checks.PAIR_COLUMNS", limit)
        ACSR(apart)
        with pytest.raises(FormatError, match=r"^row 1: the runs overlap"):
            ACSR(meeting)


def test_a_mask_cannot_be_changed_by_way_of_its_arrays():
    start = np.array([5, 0, 1])
    runs = Runs(GOOD["shape"], *(np.array(GOOD["row_ptr"]), start, np.array(GOOD["step"]), np.array(GOOD["count"])))
    mask = ACSR(runs)
    start[:] = 7
    assert mask.run_start.tolist() == [5, 0, 1]
    large = ACSR(from_triples((1, 2**40), 0, 2**39, 1, 4))  # its arrays are int64 as those of Runs
    for acsr in (mask, large, pickle.loads(pickle.dumps(mask)), mask.rows(slice(0, 2)), mask.transpose()):  # noqa: S301
        for name in ("run_ptr", "run_start", "run_step", "run_count"):
            array = getattr(acsr, name)
            while isinstance(array, np.ndarray):
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.setflags(write=True)
                array = array.base


def test_masks_and_geometry_survive_copies_and_pickles():
    mask = ACSR(table())
    for twin in (copy.copy(mask), copy.deepcopy(mask)):
        assert twin is mask
    symbolic = patterns.window(2) | patterns.sinks(1)
    for found in (geometry(mask), geometry(symbolic), geometry(symbolic, 9, 8)):
        for twin in (pickle.loads(pickle.dumps(found)), copy.deepcopy(found), copy.copy(found)):  # noqa: S301
            assert repr(twin) == repr(found)
            if found.shape is not None:
                assert np.array_equal(twin.to_dense(), found.to_dense())
    assert not geometry(mask).table.lo.flags.writeable


@pytest.mark.parametrize(
    "options", [{"dtype": "float32"}, {"dtype": "float16", "backend": "cuda", "target": "sm_90a"}], ids=["cpu", "gpu"]
)
def test_tables_of_plans_cannot_be_changed_even_after_a_pickle(options):
    decided = plan(patterns.random_blocks(4, 2, 0), seq_q=40, seq_kv=40, head_dim=64, **options)
    for twin in (decided, copy.deepcopy(decided), pickle.loads(pickle.dumps(decided))):  # noqa: S301
        assert twin.explain() == decided.explain()
        for one in twin.passes:
            arrays = [getattr(one.table, field.name) for field in fields(one.table)]
            arrays = [array for array in arrays if isinstance(array, np.ndarray)]
            assert len(arrays) >= 4
            for array in arrays:
                with pytest.raises(ValueError, match="WRITEABLE"):
                    array.setflags(write=True)


@pytest.mark.parametrize(
    "bad",
    [
        nodes.Window(-5, 3), nodes.Sinks(2**70), nodes.Columns(0, 0, 1), nodes.Columns(4, 3, 8), nodes.Blocked(0, 0, 0),
        nodes.Dilated(3, 0), nodes.Strided(0), nodes.Documents((50, -10)), nodes.GlobalAt((5, -3)),
        nodes.GlobalFirst((1, 2.5)),
        nodes.Neighborhood((40,), (3,), (1,)), nodes.RandomBlocks(0, 1, 0), nodes.Window("a", 2),
    ],
    ids=lambda bad: type(bad).__name__,
)  # fmt: skip
def test_a_pickled_pattern_is_checked_by_its_constructor(bad):
    with pytest.raises(PatternError):
        pickle.loads(pickle.dumps(bad))  # noqa: S301


class _Steps:
    """Pickles as a combination of other steps."""

    def __init__(self, steps):
        self.steps = steps

    def __reduce__(self):
        return (patterns.full() | patterns.causal()).__reduce__()[0], (self.steps,)


@pytest.mark.parametrize(
    "steps",
    [(), 3, (patterns.full(), patterns.full()), (("Union", 0),), (patterns.full(), ("Or", 1)), (("AlignEnd", 1),),
     (patterns.full(), patterns.full(), ("AlignEnd", 2)), (patterns.full(), ("Union", -1)), ("Union",)],
)  # fmt: skip
def test_a_pickled_combination_is_checked(steps):
    with pytest.raises(PatternError):
        pickle.loads(pickle.dumps(_Steps(steps)))  # noqa: S301


@pytest.mark.parametrize("parts", [(), 3, "ab", [patterns.full()], (patterns.full(), 3)])
def test_only_patterns_are_combined(parts):
    with pytest.raises(PatternError, match=r"^parts: wanted a tuple of Patterns"):
        nodes.Union(parts)


@pytest.mark.parametrize(
    "call",
    [
        lambda: ACSR.from_csr([0, 1], [2**31 + 1], (1, 8)),
        lambda: ACSR.from_csr(np.array([0, 1], np.uint64), np.array([2**64 - 1], np.uint64), (1, 8)),
        lambda: ACSR.from_csr([0.0, 1.0], [1], (1, 8)),
        lambda: ACSR.from_csr([0, 1], [True], (1, 8)),
        lambda: ACSR.from_csr([[0, 1]], [1], (1, 8)),
        lambda: ACSR.from_csr(None, [1], (1, 8)),
        lambda: ACSR.from_csr([0, 1], ["1"], (1, 8)),
        lambda: ACSR.from_csr([0, [1, 2]], [1], (1, 8)),
        lambda: ACSR.from_csr([0, 2**70], [1], (1, 8)),
        lambda: ACSR.from_csr([0, 1], [1], (1.0, 8)),
        lambda: ACSR.from_csr([0, 1], [1], None),
        lambda: ACSR.from_dense([[True, False], [True]]),
        lambda: ACSR.from_dense(np.array([[True, None]], object)),
        lambda: ACSR.from_dense(np.zeros(3, bool)),
        lambda: ACSR.from_dense(None),
        lambda: ACSR.from_scipy(np.zeros((2, 2))),
        lambda: ACSR.from_pattern(patterns.causal(), 2.5, 3),
        lambda: ACSR.from_pattern(patterns.causal(), 2**70, 3),
        lambda: ACSR.from_pattern("causal()", 3, 3),
    ],
)
def test_arrays_that_are_no_mask_are_refused_by_name(call):
    with pytest.raises(SplatError):
        call()
