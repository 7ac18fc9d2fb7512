"""A case of tests.emulator.fidelity on a GPU."""

from __future__ import annotations

import numpy as np

from splat_numba.gen.schedules.schedule import EmittedText, Step
from splat_numba.runtime.cuda.build import build
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.launch import HostWords, Launches, load, record_of
from splat_numba.runtime.cuda.memory import DeviceArray, Upload, memory
from splat_numba.runtime.cuda.tensor_map import Maps, words_of
from splat_numba.settings import current


def on_gpu(case):
    """The case's answer as uint32, from the first GPU."""
    cubin = build(case.kernel, case.entry, current())
    gpu = device(0)
    source = Upload(memory(gpu), case.source)
    words = DeviceArray(gpu, (case.words,), "uint32")
    answer = np.full(case.words, 2**32 - 1, np.uint32)
    words.fill(answer)
    with gpu.current():
        given, held = case.maps(source.address), HostWords()
        encoded = Maps([words_of(one, at, 0, held) for at, one in enumerate(given)], held, current())
        found = encoded.encode([one.pointer for one in given])
    maps = Upload(memory(gpu), found if given else np.zeros(16, np.uint64))
    values = {"source": source.address, "target": words.pointer, "maps": maps.address}
    with gpu.current():
        function = load(cubin.code, cubin.report.symbol, gpu.ordinal, case.entry.shared_bytes)
    step = Step(EmittedText(case.entry.name, case.entry, str, ()), case.grid, values, {}, {})
    launches = Launches([step], lambda _, memory: record_of(step, {}, {}, function, memory), 0, gpu.context, current())
    launches.run(gpu.stream, asks=False)
    words.read(answer)
    return answer
