"""Float32 calls from arrays to launches: the whole runtime as it is, over a driver that runs texts on the emulator."""

# ruff: noqa: N802 - the driver names its functions

import numpy as np
import pytest

import flurka_numba
from flurka_numba.gpu import call as gpu_call
from flurka_numba.gpu import vjp as gpu_vjp
from splat_numba.emulator.text import launch as emulate
from splat_numba.errors import ArgumentError, ArgumentTypeError
from splat_numba.runtime.cuda import frameworks
from splat_numba.runtime.recent import Recent
from tests.emulator.emulated_gpu import EmulatedDriver
from tests.flurka.agreement import check_forward, check_gradients, operand_of
from tests.flurka.strategies import Case
from tests.runtime.fake_cuda import Status, forget, install, packed_values

SMALL = Case(seq_q=5, seq_kv=9, rank=4, head_dim=8, value_dim=8, heads=2)


class ComposingDriver(EmulatedDriver):
    """``launched``: names of the texts that ran; ``texts``: themselves."""

    def __init__(self):
        super().__init__()
        self.launched, self.texts = [], []

    def cuLaunchKernel(self, function, grid, _y, _z, threads, *rest):
        text, entry = self.text_and_entry(function)
        assert (threads, rest[2]) == (entry.threads, entry.shared_bytes)
        self.launched.append(entry.name)
        self.texts.append(text)
        values = packed_values(rest[-2], entry.parameters)
        emulate(text, entry.name, entry, values, self.device_memory, [], grid=grid)
        return (Status.CUDA_SUCCESS,)


class There:
    """The emulated GPU's copy of a NumPy array, with its strides, as an array of no framework.

    offset: of its address.
    """

    def __init__(self, gpu, array, offset=0):
        first, last = np.lib.array_utils.byte_bounds(array)
        place = gpu.device_memory.allocate(max(-(-(last - first + offset) // 4) * 4, 4)) + offset
        self._offset = place + array.__array_interface__["data"][0] - first
        facts = {"data": (self._offset, False), "shape": array.shape, "strides": array.strides}
        self.__cuda_array_interface__ = {**facts, "typestr": array.dtype.str, "version": 3}
        self.shape, self._gpu, self._dtype, self._strides = array.shape, gpu, array.dtype, array.strides
        if array.size:
            self.view()[...] = array

    def view(self):
        if 0 in self.shape:
            return np.zeros(self.shape, self._dtype)
        buffer, start = self._gpu.device_memory.find(self._offset, self._offset + 1)
        return np.ndarray(self.shape, self._dtype, buffer, self._offset - start, self._strides)


@pytest.fixture
def gpu(monkeypatch):
    """A GPU on which float32 calls run; without "auto"'s NumPy arrays on the emulator."""
    fake = install(monkeypatch, ComposingDriver())
    for module in (gpu_call, gpu_vjp):
        monkeypatch.setattr(module, "_ready", Recent(256))
    monkeypatch.setattr(
        type(frameworks.NUMBA), "empty", lambda _, shape, dtype, __: There(fake, np.zeros(shape, dtype))
    )
    yield fake
    forget()


CASES = {
    "flurka": {"batch": 2, "kv_lengths": (9, 3)},
    "odd dims, per head": {"head_dim": 7, "value_dim": 5, "per_head": True, "shared": True},
    "favor": {"feature_map": "favor", "heads": None, "batch": None},
    "rfa, kernel": {"feature_map": "rfa", "method": "kernel", "value_dim": 5},
    "low rank": {"method": "low_rank", "batch": None, "strided": True},
    "nothing": {"seq_q": 0, "method": "kernel"},
}


@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
def test_numpy_arrays_are_copied_there_and_back(gpu, changes):
    check_gradients(SMALL.but(**changes), backend="cuda")
    check_forward(SMALL.but(**changes), backend="cuda")
    assert gpu.launched


@pytest.mark.parametrize("changes", [{"method": "low_rank", "value_dim": 5}, {"method": "kernel", "head_dim": 7}, {}])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_16_bit_gradients_of_numpy_arrays(gpu, changes, dtype):
    case = SMALL.but(dtype=dtype, **changes)
    back = operand_of(case, gradients=True)
    check_gradients(case, backend="cuda", operand=operand_of(case), operand_back=back)  # by sm80
    assert gpu.launched


def test_16_bit_gradients_of_arrays_that_cannot_be_multiplied(gpu):
    case = SMALL.but(dtype="float16")
    given, found = there(gpu, case)
    right, pull = case.wanted_vjp(given)
    out, vjp = flurka_numba.attention_vjp(**found)
    for got, wanted in zip((out, *vjp(There(gpu, case.dout()))), (right, *pull(case.dout())), strict=True):
        np.testing.assert_allclose(got.view(), wanted, rtol=2e-3, atol=1e-3)


def test_16_bit_gradients_of_rows_that_tensor_cores_cannot_read_in_place(gpu):
    """Of 7 numbers, 14 bytes apart: each schedule copies them for itself."""
    case = SMALL.but(method="kernel", dtype="float16", head_dim=7, value_dim=5)
    given, found = there(gpu, case)
    right, pull = case.wanted_vjp(given)
    out, vjp = flurka_numba.kernel_attention_vjp(**found, target="sm80")
    for got, wanted in zip((out, *vjp(There(gpu, case.dout()))[:3]), (right, *pull(case.dout())[:3]), strict=True):
        np.testing.assert_allclose(got.view(), wanted, rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("offset", [0, 2])
def test_heads_side_by_side_are_one_product(gpu, offset):
    """As layers have them: (batch, seq, heads, dim) in memory. Of an address that is not a multiple of 16, no."""
    case = SMALL.but(dtype="float16", batch=2, heads=2, kv_lengths=(9, 4), value_dim=40)
    given, found = case.arrays(), {}
    for name, one in given.items():
        beside = one.swapaxes(1, 2) if name in "qkv" else one
        room = np.full(beside.size + 8, np.nan, one.dtype)
        placed = room[offset // 2 : offset // 2 + beside.size].reshape(beside.shape)
        placed[...] = beside
        found[name] = There(gpu, placed.swapaxes(1, 2) if name in "qkv" else placed, offset)
    right, pull = case.wanted_vjp(given)
    del gpu.texts[:]
    out, vjp = flurka_numba.attention_vjp(**found, target="sm80", kv_lengths=np.array(case.kv_lengths))
    wide = [text for text in gpu.texts if text.startswith('"""Matrix products of float16 as float32, 64 x 128')]
    assert bool(wide) == (offset == 0)
    for got, wanted in zip((out, *vjp(There(gpu, case.dout()))), (right, *pull(case.dout())), strict=True):
        np.testing.assert_allclose(got.view(), wanted, rtol=2e-3, atol=1e-3)


def there(gpu, case, turn=False):
    given = case.arrays()
    found = {name: There(gpu, one[..., ::-1, :] if turn else one) for name, one in given.items() if name != "omega"}
    return {name: one[..., ::-1, :] if turn else one for name, one in given.items()}, found


@pytest.mark.parametrize("turn", [False, True])
@pytest.mark.parametrize("value_dim", [8, 5])
def test_arrays_on_a_gpu_at_any_strides(gpu, value_dim, turn):
    case = SMALL.but(value_dim=value_dim, strided=not turn)
    given, found = there(gpu, case, turn)
    right, pull = case.wanted_vjp(given)
    out, vjp = flurka_numba.attention_vjp(**found)
    np.testing.assert_allclose(out.view(), right, atol=1e-5)
    dout = case.dout()
    for got, wanted, one in zip(vjp(There(gpu, dout)), pull(dout), found.values(), strict=True):
        assert got.shape == one.shape
        assert got.__cuda_array_interface__["strides"] == np.zeros(one.shape, np.float32).strides
        np.testing.assert_allclose(got.view(), wanted, atol=1e-5)
    with pytest.raises(ArgumentError, match=r"dout wanted of shape"):
        vjp(There(gpu, dout[..., :3]))


@pytest.mark.parametrize("value_dim", [8, 5])
@pytest.mark.parametrize("step", [1, 2])
def test_out_is_written_in_place_and_nothing_around_it(gpu, value_dim, step):
    case = SMALL.but(value_dim=value_dim)
    given, found = there(gpu, case)
    whole = There(gpu, np.full((1, 2, 5, 3 * value_dim), 7.0, np.float32))
    part = There(gpu, np.zeros((1, 2, 5, 3 * value_dim), np.float32)[..., : step * value_dim : step])
    part._offset = whole._offset + 4 * (8 if value_dim == 8 else 1)
    part.__cuda_array_interface__["data"] = (part._offset, False)
    for _ in range(2):
        assert flurka_numba.attention(**found, out=part) is part
        np.testing.assert_allclose(part.view(), case.wanted_vjp(given)[0], atol=1e-5)
    assert (whole.view() == 7.0).sum() == 2 * 5 * 2 * value_dim


def test_a_call_like_an_earlier_one_makes_no_text(gpu):
    given, found = there(gpu, SMALL)
    first = flurka_numba.attention(**found).view().copy()
    known = len(gpu.functions)
    assert np.array_equal(flurka_numba.attention(**found).view(), first)
    assert len(gpu.functions) == known
    with pytest.raises(ArgumentTypeError, match=r"^q wanted as float16, bfloat16, float32 for backend 'cuda'"):
        flurka_numba.attention(**{name: There(gpu, one.astype(np.float64)) for name, one in given.items()})
