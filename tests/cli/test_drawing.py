"""Pictures of masks: what a dot stands for, and how dots become text."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

import splat_numba as splat
from splat_numba.cli.drawing import side_by_side, to_lines
from splat_numba.formats.raster import mask_picture
from splat_numba.pictures.picture import Picture
from splat_numba.testing import masks


def dense_blocks(mask, rows, cols, dots):
    """Share of the kept pairs under every dot, the obvious way."""
    row_edges = [rows[0] + t * (rows[1] - rows[0]) // dots[0] for t in range(dots[0] + 1)]
    col_edges = [cols[0] + t * (cols[1] - cols[0]) // dots[1] for t in range(dots[1] + 1)]
    return np.array([[mask[a:b, c:d].mean() for c, d in pairwise(col_edges)] for a, b in pairwise(row_edges)]).reshape(
        dots
    )


@settings(max_examples=40)
@given(st.data(), st.integers(1, 70), st.integers(1, 70), st.integers(1, 40))
def test_a_dot_holds_the_share_of_the_pairs_under_it(data, seq_q, seq_kv, dots):
    mask = data.draw(masks(seq_q, seq_kv))
    if isinstance(mask, splat.Pattern):
        mask = splat.ACSR.from_pattern(mask, seq_q, seq_kv)
    elif isinstance(mask, np.ndarray):
        mask = splat.from_dense(mask)
    picture = mask_picture(mask, dots)
    assert picture.kept.shape[0] <= dots
    assert picture.kept.shape[1] <= dots
    wanted = dense_blocks(mask.to_dense(), picture.rows, picture.cols, picture.kept.shape)
    np.testing.assert_allclose(picture.kept, wanted)


@given(st.integers(0, 9), st.integers(0, 9), st.integers(0, 2**16))
def test_braille_and_ascii_say_exactly_the_dots(rows, cols, seed):
    dots = np.random.default_rng(seed).random((rows, cols)) < 0.5
    braille = np.zeros((12, 10), bool)
    for r, line in enumerate(to_lines(dots)):
        for c, sign in enumerate(line):
            bits = ord(sign) - 0x2800
            places = [(0, 0), (1, 0), (2, 0), (0, 1), (1, 1), (2, 1), (3, 0), (3, 1)]  # in the order of Unicode's bits
            for bit, (down, right) in enumerate(places):
                braille[4 * r + down, 2 * c + right] = bits >> bit & 1
    np.testing.assert_array_equal(braille[:rows, :cols], dots)
    plain = np.zeros((10, 10), bool)
    for r, line in enumerate(to_lines(dots, ascii_only=True)):
        for c, sign in enumerate(line):
            plain[2 * r, c], plain[2 * r + 1, c] = sign in "':", sign in ".:"
    np.testing.assert_array_equal(plain[:rows, :cols], dots)


@pytest.mark.parametrize(
    ("text", "rows", "whole"),
    [
        ("window(128)", (0, 4096), True),
        ("bigbird(64)", (0, 4096), True),
        ("strided(16)", (0, 32), False),  # the whole would be grey all over
        ("dilated(128, 4)", (0, 32), False),  # ... or look like window(512)
    ],
)
def test_a_blur_is_replaced_by_a_corner(text, rows, whole):
    picture = mask_picture(splat.ACSR.from_pattern(splat.parse(text), 4096, 4096), 32)
    assert (picture.rows, picture.whole) == (rows, whole)
    assert picture.caption == ("4096 x 4096" if whole else "zoom 32 x 32")


def test_a_mask_aligned_at_the_end_shows_its_last_corner():
    picture = mask_picture(splat.ACSR.from_pattern((splat.strided(16) & splat.causal()).align_end(), 1024, 4096), 32)
    assert (picture.rows, picture.cols) == ((992, 1024), (4064, 4096))


@pytest.mark.parametrize(("rows", "cols"), [(0, 0), (0, 5), (5, 0), (1, 1)])
def test_empty_masks_have_a_picture(rows, cols):
    picture = mask_picture(splat.from_dense(np.zeros((rows, cols), bool)))
    assert not picture.dots.any()
    assert picture.caption == f"{rows} x {cols}"


@pytest.mark.parametrize(("width", "lines_of_frames"), [(80, 2), (40, 4), (10, 8)])
def test_pictures_stand_side_by_side_as_far_as_there_is_room(width, lines_of_frames):
    console = Console(file=io.StringIO(), width=width, legacy_windows=False)
    picture = Picture(np.eye(32), (0, 32), (0, 32), True)
    console.print(side_by_side(console, [("window(0)", picture)] * 8))
    tops = [line for line in console.file.getvalue().splitlines() if line.startswith("┌")]
    assert len(tops) == lines_of_frames


def test_a_console_without_unicode_gets_ascii_alone():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    console = Console(file=stream, width=80)
    console.print(side_by_side(console, [("causal()", mask_picture(splat.ACSR.from_pattern(splat.causal(), 64, 64)))]))
    stream.flush()
    lines = stream.buffer.getvalue().decode("ascii").splitlines()
    assert lines[0] == "+" + "-" * 32 + "+"
    assert lines[1] == "|:." + " " * 30 + "|"  # rows 0 to 3 of 64, two tokens a dot
    assert lines[16] == "|" + ":" * 31 + ".|"
