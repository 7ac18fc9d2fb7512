"""A dilated window costs what an undilated one of as many pairs costs: plan it, run it, check it.

python examples/dilated_window.py
"""

import time

import numpy as np

import splat_numba as splat


def main() -> None:
    """Time three windows of 257 keys a row, spread 1, 4 and 16 tokens apart."""
    rng = np.random.default_rng(0)
    q, k, v = (rng.standard_normal((1, 4, 4096, 64), dtype=np.float32) for _ in range(3))
    for step in (1, 4, 16):
        mask = splat.dilated(128, step)
        out = splat.attention(q, k, v, mask)  # generates and compiles
        begin = time.perf_counter()
        splat.attention(q, k, v, mask, out=out)
        seconds = time.perf_counter() - begin
        rows = slice(2000, 2016)
        dense = splat.ACSR.from_pattern(mask, 4096, 4096).rows(rows).to_dense()
        wanted = splat.reference.attention(q[:, :, rows], k, v, dense)
        error = np.abs(out[:, :, rows] - wanted).max()
        print(f"{mask!r:>16}: {seconds * 1e3:6.1f} ms, largest error of 16 rows {error:.1e}")
        assert error < 1e-5


if __name__ == "__main__":
    main()
