"""Device functions of a text, by the name that the gradients' texts know: see targets.gpu.functions."""

from __future__ import annotations

from splat_numba.gen.targets.gpu import functions

DEVICE, device_function, wrapped = functions.DEVICE, functions.device_function, functions.wrapped
