"""Arrays in and out: views without copies, whatever their strides; what cannot be read or written is refused."""

import ml_dtypes
import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided
from numpy.testing import assert_array_equal

from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError
from splat_numba.runtime.arrays import (
    check_out,
    export_array,
    host_numbers,
    import_array,
    import_out,
    kind_of,
    on_gpu,
)


def base(dtype=np.float32):
    return np.arange(240).astype(dtype).reshape(2, 3, 8, 5)


VIEWS = {
    "as it is": lambda x: x,
    "reversed": lambda x: x[:, ::-1, ::-1, ::-1],
    "broadcast": lambda x: np.broadcast_to(x[:, :1], x.shape),
    "transposed": lambda x: x.transpose(3, 2, 1, 0),
    "part": lambda x: x[1:, :, 2:5, 1:3],
    "overlapping": lambda x: as_strided(x, (4, 5), (4 * x.itemsize, x.itemsize)),
    "empty": lambda x: x[:, :0],
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("name", VIEWS)
def test_any_view_is_taken_without_a_copy(name, dtype):
    given = VIEWS[name](base(dtype))
    found = import_array("q", given)
    assert found.dtype == np.dtype(dtype).name
    assert found.shape == given.shape
    assert found.bits.strides == given.strides
    assert found.bits.dtype == (np.uint16 if given.itemsize == 2 else dtype)
    assert np.shares_memory(found.bits, given) or not given.size
    assert_array_equal(found.bits.view(dtype), given)


def test_a_read_only_array_is_taken_and_stays_read_only():
    given = base()
    given.flags.writeable = False
    assert not import_array("q", given).bits.flags.writeable


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_is_exported_has_the_dtype_of_the_input_and_shares_memory(dtype):
    like = np.zeros(3, ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype)
    bits = np.zeros((2, 3), np.uint16 if like.itemsize == 2 else dtype)
    got = export_array(bits, dtype, like)
    assert got.dtype == like.dtype
    assert np.shares_memory(got, bits)


class OnAnotherDevice:
    """As much of an array of a GPU framework as is asked for before it is refused."""

    def __dlpack__(self, **_):
        raise AssertionError("not to be read")

    def __dlpack_device__(self):
        return (2, 0)


class FromAnotherFramework:
    """A CPU array that speaks DLPack and is not NumPy's."""

    def __init__(self, array):
        self.array = array

    def __dlpack__(self, **options):
        return self.array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self.array.__dlpack_device__()


def test_an_array_that_speaks_dlpack_is_taken_without_a_copy():
    given = base()
    found = import_array("q", FromAnotherFramework(given))
    assert np.shares_memory(found.bits, given)
    assert found.dtype == "float32"


@pytest.mark.parametrize("device", [1, 3, 11])
def test_memory_that_a_gpu_has_pinned_is_the_cpus(device):
    class Pinned(FromAnotherFramework):
        def __dlpack_device__(self):
            return device, 0

    given = base()
    assert np.shares_memory(import_array("q", Pinned(given)).bits, given)
    assert not on_gpu(Pinned(given))


def test_an_array_without_a_framework_gets_numpys_back():
    like = FromAnotherFramework(base())
    result = np.zeros((2, 3), np.float32)
    assert export_array(result, "float32", like) is result
    assert export_array(np.zeros(3, np.uint16), "float16", like).dtype == np.float16


def test_an_array_with_a_namespace_gets_its_own_back():
    class Own(FromAnotherFramework):
        def __array_namespace__(self):
            return self

        @staticmethod
        def from_dlpack(array):
            return Own(array)

    assert isinstance(export_array(np.zeros(3, np.float32), "float32", Own(base())), Own)


@pytest.mark.parametrize("change", [lambda x: x[0, 0].view(np.matrix), lambda x: x.view(np.recarray), "memmap"])
def test_subclasses_of_numpys_arrays_are_read_as_plain_ones(change, tmp_path):
    given = np.memmap(tmp_path / "numbers", np.float32, "w+", shape=(2, 3)) if change == "memmap" else change(base())
    found = import_array("q", given)
    assert type(found.bits) is np.ndarray
    assert np.shares_memory(found.bits, given)


@pytest.mark.parametrize("look", [import_array, host_numbers])
@pytest.mark.parametrize("mask", [np.ma.nomask, True])
def test_a_masked_array_is_refused(look, mask):
    with pytest.raises(ArgumentError) as caught:
        look("k", np.ma.masked_array(base(), mask))
    assert str(caught.value) == (
        "k wanted as a plain array, got a masked one, whose mask would be lost. Give k.filled(0), or k.data for all of "
        "its numbers."
    )


def test_numbers_of_the_host_are_made_or_refused():
    assert host_numbers("kv_lengths", [3, 1]).tolist() == [3, 1]
    with pytest.raises(ArgumentTypeError, match=r"^kv_lengths wanted as numbers in CPU memory, got list, of which"):
        host_numbers("kv_lengths", [[1], [2, 3]])


class Raises:
    """An array of one's own in which something is wrong. what: the name of the method that raises."""

    def __init__(self, what, error):
        self.what, self.error = what, error

    def __dlpack_device__(self):
        if self.what == "device":
            raise self.error
        return 1, 0

    def __dlpack__(self, **_):
        raise self.error


class Everything:
    """Says yes to every question, as a stand-in of unittest.mock's does."""

    def __getattr__(self, name):
        return self

    def __call__(self, *_, **__):
        return self

    __iter__ = __bool__ = None


@pytest.mark.parametrize("what", ["device", "data"])
@pytest.mark.parametrize("error", [AttributeError("x"), BufferError("x"), NotImplementedError("x"), ValueError("x")])
def test_what_a_class_raises_is_said_by_name(what, error):
    given = Raises(what, error)
    assert not on_gpu(given)
    with pytest.raises(ArgumentTypeError) as caught:
        import_array("v", given)
    assert str(caught.value) == (
        "v wanted as an array that NumPy can view by DLPack, got Raises, whose DLPack says: "
        f"{type(error).__name__}: x. Convert it, for example with np.asarray(v, dtype=np.float32)."
    )


NO_ARRAYS = [
    None, 3, 2.5, True, "abc", b"abc", [1.0], (1.0,), {"q": 1}, {1}, range(3), object(), object, np, np.float32(1),
    np.float32, np.ma.masked, Ellipsis, slice(3), lambda: None, iter([1.0]), memoryview(b"abcd"), Everything(),
    np.dtype("f4"),
]  # fmt: skip


@pytest.mark.parametrize("given", NO_ARRAYS, ids=lambda one: type(one).__name__)
@pytest.mark.parametrize("look", [lambda x: import_array("q", x), import_out])
def test_what_is_no_array_is_refused_by_name(given, look):
    with pytest.raises((ArgumentTypeError, ArgumentError), match=r"^(q|out) wanted as "):
        look(given)
    assert isinstance(kind_of(given), str)


DTYPES = ["O", "M8[s]", "m8[s]", "U3", "S2", "V4", [("a", "f4")], "c8", "?", "u1", "u2", "i8", ">f4", ">f8", "g"]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_other_dtypes_are_refused_by_name(dtype):
    for view in (lambda x: x, lambda x: x[::-1], lambda x: x[:0], lambda x: np.broadcast_to(x[:1], 4)):
        with pytest.raises(ArgumentTypeError, match=r"^q wanted as float16, bfloat16, float32, float64 in native byte"):
            import_array("q", view(np.zeros(4, dtype)))


def misaligned():
    memory = np.zeros(4 * 6 + 1, np.uint8)
    return memory[1:].view(np.float32)


def odd_strides():
    return np.zeros(4, np.dtype([("x", np.float32), ("y", np.uint8)]))["x"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (
            misaligned(),
            ArgumentError,
            "q wanted at an address of whole elements, a multiple of 4 bytes, got one 1 bytes past. "
            "Copy it with .copy().",
        ),
        (odd_strides(), ArgumentError, "q wanted with strides of whole elements, got (5,). Copy it with .copy()."),
        (
            np.zeros(3, np.int64),
            ArgumentTypeError,
            "q wanted as float16, bfloat16, float32, float64 in native byte order, got int64. "
            "Convert it, for example with q.astype(np.float32).",
        ),
        (
            np.zeros(3, ">f4"),
            ArgumentTypeError,
            "q wanted as float16, bfloat16, float32, float64 in native byte order, got >f4. "
            "Convert it, for example with q.astype(np.float32).",
        ),
        (
            [1.0, 2.0],
            ArgumentTypeError,
            "q wanted as an array (NumPy, or anything with DLPack), got list. "
            "Convert it, for example with np.asarray(q, dtype=np.float32).",
        ),
        (
            OnAnotherDevice(),
            BackendError,
            "q wanted in CPU memory for backend 'cpu', got an array on another device. Copy it first.",
        ),
    ],
    ids=["misaligned", "odd strides", "integers", "byte order", "list", "device"],
)
def test_what_cannot_be_read_is_refused(given, error, message):
    with pytest.raises(error) as caught:
        import_array("q", given)
    assert str(caught.value) == message


def test_an_out_that_shares_no_element_with_the_inputs_is_taken():
    memory = base()
    check_out(memory[:, ::2], {"q": memory[:, 1::2]})
    check_out(memory[0, :, ::-1], {"q": memory[1], "k": base(), "v": memory[1, :, ::2]})
    check_out(np.broadcast_to(memory[:1, :1], (1, 1, 8, 5)).copy(), {})


@pytest.mark.parametrize("shape", [(0, 2, 8, 5), (2, 0, 8, 5), (2, 2, 0, 5), (0,)])
def test_an_empty_out_is_taken(shape):
    check_out(np.empty(shape, np.float32), {"q": base()})
    check_out(as_strided(np.empty(1, np.float32), shape, (0,) * len(shape)), {})  # NumPy 2.4 makes them so


@pytest.mark.parametrize(
    ("out", "wanted"),
    [
        (lambda x: np.broadcast_to(x[:, :1].copy(), x.shape), "out wanted writeable, got a read-only array."),
        (lambda x: as_strided(x.copy(), (3, 3), (4, 0)), "out wanted with a place for every number"),
        (lambda x: as_strided(x.copy(), (4, 5), (8, 4)), "out wanted with a place for every number"),
        (lambda x: x[1:], "out wanted apart from the inputs, got memory that q uses."),
        (lambda x: x[:, :, ::-1], "out wanted apart from the inputs, got memory that q uses."),
    ],
    ids=["read-only", "stride 0", "rows that overlap", "part of q", "q reversed"],
)
def test_an_out_that_cannot_be_written_without_harm_is_refused(out, wanted):
    q = base()
    with pytest.raises(ArgumentError) as caught:
        check_out(out(q), {"q": q})
    assert str(caught.value).startswith(wanted)
