"""XLA's call frames with arrays of a fake GPU, whose driver is called in C's way."""

# ruff: noqa: N802 - the driver names its functions

import ctypes

import numpy as np

from splat_numba.runtime.cuda import device
from splat_numba.runtime.xla import gpu_program, gpu_register, layout
from tests.runtime import fake_native

WORD = ctypes.c_int64
CONTEXT, STREAM = 99, 4711


class NativeDriver(fake_native.NativeDriver):
    """Where all work is on one stream."""

    def cuStreamIsCapturing(self, stream, found):
        assert stream == STREAM
        super().cuStreamIsCapturing(stream, found)


def install(monkeypatch, fake):
    """Let programs find a driver's functions that are the fake's, and one GPU that JAX has."""
    native = NativeDriver(fake)
    monkeypatch.setattr(gpu_program, "addresses", native.addresses)
    monkeypatch.setattr(gpu_register, "_devices", lambda: [device.device(0)])
    return native


class Frame:
    """XLA's call frame of arrays at these addresses. ordinal: of the device; error: that XLA's functions give."""

    def __init__(self, arguments, results, stage=layout.EXECUTE, stream=STREAM, ordinal=0, stream_error=0):
        self.errors, self._kept = [], []
        self._stream, self._ordinal, self._stream_error = stream, ordinal, stream_error
        table = ctypes.create_string_buffer(layout.DEVICE_ORDINAL_GET + 8)
        for place, function in (
            (layout.ERROR_CREATE, self._create), (layout.STREAM_GET, self._get_stream),
            (layout.DEVICE_ORDINAL_GET, self._get_ordinal),
        ):  # fmt: skip
            native = ctypes.CFUNCTYPE(WORD, WORD)(function)
            self._kept.append(native)
            self._put(table, place, ctypes.cast(native, ctypes.c_void_p).value)
        self._frame = ctypes.create_string_buffer(168)
        self._put(self._frame, layout.API, ctypes.addressof(table))
        self._put(self._frame, layout.CONTEXT, CONTEXT)
        self._put(self._frame, layout.STAGE, stage, ctypes.c_int32)
        for count, place, given in (
            (layout.ARGUMENT_COUNT, layout.ARGUMENTS, arguments), (layout.RESULT_COUNT, layout.RESULTS, results),
        ):  # fmt: skip
            buffers = [ctypes.create_string_buffer(48) for _ in given]
            for buffer, address in zip(buffers, given, strict=True):
                self._put(buffer, layout.BUFFER_DATA, address)
            addresses = (WORD * len(given))(*map(ctypes.addressof, buffers))
            self._put(self._frame, count, len(given))
            self._put(self._frame, place, ctypes.addressof(addresses))
            self._kept += [table, buffers, addresses]

    @staticmethod
    def _put(buffer, offset, value, kind=WORD):
        kind.from_address(ctypes.addressof(buffer) + offset).value = value

    def _create(self, given):
        assert WORD.from_address(given).value == layout.ERROR_SIZE
        message = ctypes.c_char_p.from_address(given + layout.ERROR_MESSAGE).value.decode()
        self.errors.append((message, ctypes.c_int32.from_address(given + layout.ERROR_CODE).value))
        return len(self.errors)

    def _get_stream(self, given):
        assert WORD.from_address(given).value == layout.STREAM_SIZE
        assert WORD.from_address(given + layout.STREAM_CONTEXT).value == CONTEXT
        WORD.from_address(given + layout.STREAM_FOUND).value = self._stream
        return self._stream_error

    def _get_ordinal(self, given):
        assert WORD.from_address(given).value == layout.ORDINAL_SIZE
        ctypes.c_int32.from_address(given + layout.ORDINAL_FOUND).value = self._ordinal
        return 0

    def call(self, loaded):
        """What the handler returns."""
        return ctypes.CFUNCTYPE(WORD, WORD)(loaded.address)(ctypes.addressof(self._frame))


class GpuArrays:
    """Arrays in an emulated GPU's memory."""

    def __init__(self, memory):
        self._memory = memory

    def put(self, array):
        """The address of a copy."""
        found = self.empty(array.nbytes)
        if array.nbytes:
            self._memory.read(found, array.nbytes)[...] = np.frombuffer(np.ascontiguousarray(array).tobytes(), np.uint8)
        return found

    def empty(self, nbytes):
        """The address of so many bytes of NaN."""
        return self._memory.allocate(max(-(-nbytes // 4), 1) * 4)

    def read(self, address, shape, dtype):
        """A copy of an array there."""
        nbytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        return (
            self._memory.read(address, nbytes).view(dtype).reshape(shape).copy() if nbytes else np.empty(shape, dtype)
        )


def run_program(native, loaded, arrays, made):
    """The results, of these shapes and dtypes, of a program over copies of the arrays on the emulated GPU."""
    memory = GpuArrays(native.fake.device_memory)
    places = [memory.put(np.asarray(one)) for one in arrays]
    rooms = [memory.empty(int(np.prod(shape)) * np.dtype(dtype).itemsize) for shape, dtype in made]
    frame = Frame(places, rooms)
    assert frame.call(loaded) == 0, frame.errors
    return [memory.read(place, *kind) for place, kind in zip(rooms, made, strict=True)]
