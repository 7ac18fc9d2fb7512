"""The driver's functions in C's way of calling, over a fake one."""

# ruff: noqa: N802 - the driver names its functions

import ctypes

from splat_numba.runtime.cuda import device

DONE, CODE = 0, 719


class NativeDriver:
    """Functions by the driver's names, of words. refuse: the name of one that fails. What a function raises is in
    ``raised``, and its code stands for it.
    """

    def __init__(self, fake):
        self.fake, self.refuse, self.asked, self.raised = fake, None, [], None
        self.overlaps = []
        self._kept = []

    def addresses(self, *names):
        return [self._native(name, getattr(self, name.removesuffix("_v2"))) for name in names]

    def _native(self, name, function):
        def called(*words):
            self.asked.append(name)
            if self.refuse == name:
                return CODE
            try:
                function(*words)
            except BaseException as error:  # noqa: BLE001 - nothing may leave a C function
                self.raised = error
                return CODE
            return DONE

        count = function.__code__.co_argcount - 1
        kept = ctypes.CFUNCTYPE(ctypes.c_uint32, *[ctypes.c_uint64] * count)(called)
        self._kept.append(kept)
        return ctypes.cast(kept, ctypes.c_void_p).value

    def cuLaunchKernelEx(self, config, function, places, extra):
        words = (ctypes.c_uint32 * 13).from_address(config)
        stream, attributes = (ctypes.c_uint64.from_address(config + at).value for at in (32, 40))
        self.overlaps.append(words[12])
        if words[12]:
            assert (words[12], ctypes.c_uint32.from_address(attributes).value) == (1, 6)
            assert ctypes.c_int32.from_address(attributes + 8).value == 1
        status = self.fake.cuLaunchKernel(function, *words[:7], stream, places, extra)
        assert not status[0]

    def cuStreamIsCapturing(self, _stream, found):
        ctypes.c_int32.from_address(found).value = int(self.fake.capturing)

    def cuCtxGetCurrent(self, found):
        ctypes.c_uint64.from_address(found).value = self.fake.contexts[-1]

    def cuCtxPushCurrent(self, context):
        self.fake.contexts.append(context)

    def cuCtxPopCurrent(self, found):
        ctypes.c_uint64.from_address(found).value = self.fake.contexts.pop()

    def cuCtxSynchronize(self, _nothing):
        assert not self.fake.capturing

    def cuMemAlloc(self, found, nbytes):
        ctypes.c_uint64.from_address(found).value = self.fake.cuMemAlloc(nbytes)[1]

    def cuMemcpyHtoDAsync(self, target, source, nbytes, stream):
        assert stream == device.device(0).stream
        self.fake.cuMemcpyHtoDAsync(target, source, nbytes, stream)

    def cuStreamSynchronize(self, stream):
        self.fake.cuStreamSynchronize(stream)

    def cuThreadExchangeStreamCaptureMode(self, mode):
        word = ctypes.c_uint32.from_address(mode)
        word.value = self.fake.cuThreadExchangeStreamCaptureMode(word.value)[1]

    def cuTensorMapEncodeTiled(
        self, target, kind, axes, pointer, sizes, steps, box, units, interleave, swizzle, promotion, fill
    ):
        assert target % 64 == 0
        wide = [list((ctypes.c_uint64 * count).from_address(at)) for at, count in ((sizes, 5), (steps, 4))]
        narrow = [list((ctypes.c_uint32 * 5).from_address(at)) for at in (box, units)]
        words = self.fake.cuTensorMapEncodeTiled(
            kind, axes, pointer, *wide, *narrow, interleave, swizzle, promotion, fill
        )[1].opaque
        (ctypes.c_uint64 * 16).from_address(target)[:] = words
