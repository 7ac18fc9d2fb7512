"""Float32 numbers rounded to bfloat16: four a thread. The word of an odd last one is written whole."""

import numpy as np

from splat_numba.runtime.cuda.dialect import cuda, ptx

u32, u64 = np.uint32, np.uint64


def narrow(
    source, result, numbers,
):
    first = u64(4) * (u64(ptx.block_index()) * u64(128) + u64(ptx.thread_index()))
    some = u32(1) if first < numbers else u32(0)
    more = u32(1) if first + u64(2) < numbers else u32(0)
    at = first if first < numbers else u64(0)
    x_0, x_1, x_2, x_3 = ptx.load_reals4(source + u64(4) * at)
    ptx.store_word(result + u64(2) * at, ptx.pack_bfloat16(x_0, x_1), some)
    ptx.store_word(result + u64(2) * at + u64(4), ptx.pack_bfloat16(x_2, x_3), more)
