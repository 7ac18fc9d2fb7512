"""What the copy engine is told, from views and strides; the driver's part needs a GPU."""

import pytest

from splat_numba.errors import PlanError
from splat_numba.gen.schedules.tensor import Tensor, contiguous
from splat_numba.gen.schedules.tensor_map import BoxMap, describable, tensor_map_arguments
from splat_numba.gen.schedules.views import Box, View
from splat_numba.gen.targets.sm90.schedule import writable_in_place

SIZES = (2, 4, 1000, 128)
PLAIN = Tensor(SIZES, contiguous(SIZES, 128), "bfloat16")
WHOLE = View(0, 1, 1000, 1000, 1)
BASE = 1 << 20


def test_a_whole_axis():
    found = tensor_map_arguments(BoxMap(PLAIN, WHOLE, Box(80)), BASE, 0)
    assert found.pointer == BASE
    assert found.sizes == (128, 1000, 1, 4, 2)
    assert found.strides == (256, 16, 256_000, 1_024_000)  # one step along c2: any stride that is accepted
    assert found.box == (64, 80, 1, 1, 1)


def test_a_residue_class_is_a_stride():
    found = tensor_map_arguments(BoxMap(PLAIN, View(3, 8, 124, 1, 5), Box(16, 4)), BASE, 0)
    assert found.pointer == BASE + 3 * 256
    assert found.sizes == (128, 124, 5, 4, 2)
    assert found.strides == (8 * 256, 256, 256_000, 1_024_000)
    assert found.box == (64, 16, 4, 1, 1)


def test_layout_bshd_is_strides_only():
    tensor = Tensor(SIZES, (1000 * 4 * 256, 256, 4 * 256, 2), "float16")
    found = tensor_map_arguments(BoxMap(tensor, WHOLE, Box(64)), BASE, 0)
    assert found.strides == (1024, 16, 256, 1_024_000)
    assert found.dtype == "float16"


def test_axes_of_one_get_a_stride_that_is_accepted():
    tensor = Tensor((1, 1, 1, 64), (0, -7, 3, 2), "bfloat16")
    assert describable(BASE, tensor)
    assert tensor_map_arguments(BoxMap(tensor, View(0, 1, 1, 1, 1), Box(64)), BASE, 0).strides == (16, 16, 16, 16)


def test_an_empty_array_is_one_element_somewhere_else():
    tensor = Tensor((2, 4, 0, 128), contiguous((2, 4, 0, 128), 128), "bfloat16")
    found = tensor_map_arguments(BoxMap(tensor, View(0, 1, 0, 0, 0), Box(64)), 0, 4096)
    assert (found.pointer, found.sizes, found.strides) == (4096, (128, 1, 1, 1, 1), (16, 16, 16, 16))


@pytest.mark.parametrize("view", [View(0, 1, 1001, 1, 1), View(1, 1, 1000, 1, 1), View(0, 3, 334, 1, 3)])
def test_a_view_beyond_the_sequence_is_refused_and_not_read(view):
    with pytest.raises(PlanError, match="views of 1000 tokens"):
        tensor_map_arguments(BoxMap(PLAIN, view, Box(64)), BASE, 0)


@pytest.mark.parametrize(
    ("pointer", "strides", "wanted"),
    [
        (BASE, PLAIN.strides, True),
        (BASE + 16, PLAIN.strides, True),
        (BASE + 2, PLAIN.strides, False),
        (BASE, (1_024_000, 0, 256, 2), False),
        (BASE, (1_024_000, 256_000, -256, 2), False),
        (BASE, (1_024_000, 254_000, 254, 2), False),
        (BASE, (1_024_000, 256_000, 256, 4), False),
        (BASE, (2**40, 256_000, 256, 2), False),
    ],
)
def test_what_the_engine_can_read_in_place(pointer, strides, wanted):
    assert describable(pointer, Tensor(SIZES, strides, "bfloat16")) is wanted


def test_a_head_dim_that_is_no_multiple_of_16_bytes_is_read_in_place_from_padded_rows_only():
    sizes = (1, 2, 10, 20)
    assert not describable(BASE, Tensor(sizes, contiguous(sizes, 20), "bfloat16"))
    assert describable(BASE, Tensor(sizes, contiguous(sizes, 24), "bfloat16"))


@pytest.mark.parametrize(
    ("pointer", "dim", "strides", "wanted"),
    [
        (4096, 20, (800, 400, 40, 2), True),
        (4098, 20, (800, 400, 40, 2), False),
        (4096, 19, (760, 380, 38, 2), False),
        (4096, 20, (840, 420, 42, 2), False),
        (4096, 20, (-800, 400, -40, 2), True),
        (4096, 20, (2, 400, 40, 800), False),
    ],
)
def test_what_the_kernel_can_write_in_place(pointer, dim, strides, wanted):
    assert writable_in_place(pointer, Tensor((1, 2, 10, dim), strides, "bfloat16")) is wanted
