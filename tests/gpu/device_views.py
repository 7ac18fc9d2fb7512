"""NumPy arrays on a GPU as any view of them that NumPy can make, and plans forced to a tile shape."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np

from splat_numba.executors import plans
from splat_numba.executors.gpu import backward as gpu_backward
from splat_numba.executors.gpu import call as gpu_call
from splat_numba.executors.gpu import executor as gpu_kernel
from splat_numba.executors.gpu import parts as gpu_parts
from splat_numba.gen.boxes import search as box_search
from splat_numba.gen.targets.gpu import gradient_kept
from splat_numba.gen.targets.sm90 import tile_shapes
from splat_numba.gen.targets.sm90.backward import tile_shapes as gradient_shapes
from splat_numba.runtime.cuda.device import device
from splat_numba.runtime.cuda.memory import DeviceArray


class DeviceView:
    """The bytes of a contiguous NumPy array on the first GPU, seen like ``view``, which lies in it."""

    def __init__(self, root, view):
        self._root = root
        self._memory = DeviceArray(device(0), (root.nbytes,), "uint8")
        self._memory.fill(root)
        offset = view.__array_interface__["data"][0] - root.ctypes.data
        assert 0 <= offset <= root.nbytes
        self.__cuda_array_interface__ = {
            "shape": view.shape,
            "strides": view.strides,
            "typestr": view.dtype.str,
            "data": (self._memory.pointer + offset, False),
            "version": 3,
        }

    def root_back(self):
        """All bytes of the memory as they are now, once the default stream is done, as an array like the root."""
        from numba import cuda

        cuda.default_stream().synchronize()
        found = np.empty_like(self._root)
        self._memory.read(found)
        return found


def views():
    """Ways to hold an array (batch, heads, seq, dim) in memory: functions to (contiguous root, view of it)."""

    def plain(x):
        return x, x

    def tokens_first(x):
        root = np.ascontiguousarray(x.transpose(0, 2, 1, 3))
        return root, root.transpose(0, 2, 1, 3)

    def sequence_first(x):
        root = np.ascontiguousarray(x.transpose(2, 0, 1, 3))
        return root, root.transpose(1, 2, 0, 3)

    def framed(before, after):
        def make(x):
            batch, heads, seq, dim = x.shape
            root = np.full((batch, heads + 2, seq + 20, before + dim + after), np.nan, x.dtype)
            view = root[:, 1:-1, 10:-10, before : before + dim]
            view[...] = x
            return root, view

        return make

    def every_third_row(x):
        root = np.full((*x.shape[:2], 3 * x.shape[2], x.shape[3]), np.nan, x.dtype)
        root[:, :, ::3] = x
        return root, root[:, :, ::3]

    def backwards(x):
        root = np.ascontiguousarray(x[:, :, ::-1])
        return root, root[:, :, ::-1]

    def dims_apart(x):
        root = np.full((*x.shape, 2), np.nan, x.dtype)
        root[..., 0] = x
        return root, root[..., 0]

    def dims_first(x):
        root = np.ascontiguousarray(x.transpose(0, 1, 3, 2))
        return root, root.transpose(0, 1, 3, 2)

    return {
        "plain": plain,
        "tokens first": tokens_first,
        "sequence first": sequence_first,
        "framed in place": framed(8, 16),
        "framed, misaligned": framed(3, 7),
        "every third row": every_third_row,
        "backwards": backwards,
        "dims apart": dims_apart,
        "dims first": dims_first,
    }


VIEWS = views()


def on_device(array, name):
    return DeviceView(*VIEWS[name](array))


def back(array):
    """A result of attention() on such arrays as a NumPy array."""
    return array.copy_to_host()


@contextmanager
def forced(monkeypatch, traits, order="", shapes=tile_shapes):
    """Plans made inside take tiles of these traits, and of the orders of rows only those with ``order`` in the name.

    shapes: the module that has the tiles of the traits' target.
    """
    with monkeypatch.context() as patch:
        patch.setattr(shapes, "candidates", lambda *_: (traits,))
        _choose_orders(patch, order)
        forget()
        yield
    forget()


@contextmanager
def forced_gradients(monkeypatch, of, boxes, order="", shapes=gradient_shapes):
    """The same of plans of gradients, of queries or of keys; the others' tiles are the target's."""
    candidates = shapes.candidates

    def chosen(problem, side, gpu):
        found, kernels = candidates(problem, side, gpu)
        return ((boxes,) if side == of else found), kernels

    with monkeypatch.context() as patch:
        patch.setattr(shapes, "candidates", chosen)
        patch.setattr(gradient_kept, "faster", lambda *_: False)
        _choose_orders(patch, order)
        forget()
        yield
    forget()


def _choose_orders(patch, order):
    schemes = box_search.schemes

    def chosen(*given, **options):
        found = schemes(*given, **options)
        return {name: parts for name, parts in found.items() if order in name} or found

    patch.setattr(box_search, "schemes", chosen)


def forget():
    """Plans are remembered by mask and problem."""
    plans.plan_for.cache_clear()
    gpu_parts.backward_plan_for.cache_clear()
    gpu_kernel._planned.cache_clear()
    gpu_call._ready.clear()
    gpu_backward._ready.clear()
