"""What notebooks show of masks, and draw(): well-formed, small at any length, and of the right pairs."""

import re
import xml.etree.ElementTree as ET
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

import splat_numba as splat
from splat_numba.errors import ArgumentError, ArgumentTypeError, BackendError, PatternError
from splat_numba.formats.drawing import CELLS, natural_lengths
from splat_numba.formats.raster import mask_picture, part_picture
from splat_numba.pictures import svg as pictures_svg
from splat_numba.pictures.svg import SHADES, svg
from splat_numba.testing import patterns
from tests.import_layers import python


def parsed(text):
    return ET.fromstring(text)  # noqa: S314 - our own text


def shades(text):
    """The opacity of every cell of a mask's <svg>, in eighths."""
    root = parsed(text)
    across, down = (int(size) for size in root.get("viewBox").split()[2:])
    cells = np.zeros((down, across), int)
    for path in root.iter("{http://www.w3.org/2000/svg}path"):
        for x, y, w in re.findall(r"M(\d+) (\d+)h(\d+)v1h-\d+z", path.get("d")):
            cells[int(y), int(x) : int(x) + int(w)] += round(float(path.get("fill-opacity")) * SHADES)
    return cells


@pytest.mark.parametrize("text", ["causal()", "bigbird(16)", "dilated(16, 4)", "(window(40) | sinks(3)).align_end()"])
def test_every_cell_has_the_shade_of_its_share(text):
    pattern = splat.parse(text)
    picture = mask_picture(splat.ACSR.from_pattern(pattern, *natural_lengths(pattern)), CELLS)
    np.testing.assert_array_equal(shades(svg(picture)), np.ceil(np.sqrt(picture.kept) * SHADES))


@settings(max_examples=60)
@given(patterns())
def test_every_pattern_is_shown_in_well_formed_text(pattern):
    shown = pattern._repr_html_()
    text = "".join(parsed(shown).itertext())
    assert repr(pattern)[:100] in text
    assert "<svg" in shown


def test_a_mask_of_a_million_tokens_is_shown_in_a_few_kilobytes():
    seq = 1 << 20
    mask = splat.ACSR.from_pattern(splat.window(1 << 16, 0), seq, seq)
    shown = mask._repr_html_()
    assert len(shown) < 8_000
    assert f"{seq:,} x {seq:,}" in shown
    picture = part_picture(mask, (0, seq), (0, seq), 64)
    counted = (picture.kept * (seq // 64) ** 2).sum()
    assert counted == pytest.approx(mask.nnz, rel=1e-12)


def test_text_that_looks_like_a_tag_is_shown_as_text():
    assert "&lt;b&gt;" in pictures_svg.html("<b>", None, [("<i>", "a & b")])
    parsed(pictures_svg.html("<b>", None, [("<i>", "a & b")]))


def test_what_has_no_picture_says_why():
    unfit = splat.documents((3, 4)) & splat.neighborhood((2, 2), 3)
    assert "not drawn" in unfit._repr_html_()
    assert "not drawn" in splat.documents((1 << 22,))._repr_html_()
    assert "<svg" not in splat.geometry(splat.window(3))._repr_html_()
    assert "<svg" in splat.geometry(splat.window(3), 8, 8)._repr_html_()


@pytest.mark.parametrize(
    ("text", "lengths"),
    [
        ("causal()", (64, 64)),
        ("window(100)", (512, 512)),
        ("causal().align_end()", (32, 64)),
        ("documents((3, 5, 9)) & window(100)", (17, 17)),
        ("neighborhood((4, 6), 3)", (24, 24)),
        ("window(2, 1000000)", (64, 64)),
        ("window(100000)", (64, 64)),
    ],
)
def test_patterns_are_drawn_at_lengths_that_show_them(text, lengths):
    assert natural_lengths(splat.parse(text)) == lengths


@pytest.mark.parametrize(
    ("lengths", "ratio"), [((64, 64), 1), ((64, 128), 0.5), ((128, 64), 2), ((1, 4096), 40 / 260), ((3, 0), 260 / 40)]
)
def test_a_figure_has_the_proportions_of_the_mask_unless_it_would_be_a_line(lengths, ratio):
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib.figure import Figure

    ax = splat.draw(splat.full(), Figure().subplots(), seq_q=lengths[0], seq_kv=lengths[1])
    assert ax.get_box_aspect() == pytest.approx(ratio)


def test_draw_takes_every_kind_of_mask_and_gives_its_axes():
    pytest.importorskip("matplotlib").use("Agg")
    from matplotlib import pyplot as plt

    axes = plt.Figure().subplots(2, 2).ravel()
    pattern, stored = splat.window(8, 0), splat.ACSR.from_pattern(splat.window(8, 0), 48, 48)
    masks = [pattern, stored, splat.geometry(pattern, 48, 48), stored.to_dense()]
    options = [{"seq_q": 48}, {}, {}, {"seq_q": 48, "seq_kv": 48}]
    wanted = np.where(stored.to_dense(), 0x08 / 255, 1.0)
    for axis, mask, option in zip(axes, masks, options, strict=True):
        assert splat.draw(mask, axis, **option) is axis
        np.testing.assert_allclose(axis.images[0].get_array()[:, :, 0], wanted)
        assert axis.get_title().startswith("window(8, 0)" if mask is pattern else "<ACSR 48 x 48")
    made = splat.draw(pattern)
    assert made.images
    plt.close(made.figure)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((5,), ArgumentTypeError, "mask wanted as a Pattern, an ACSR, a Geometry or a 2-D bool array, got 5"),
        ((splat.causal(), 5), ArgumentTypeError, "ax wanted as axes of matplotlib, got int."),
        ((np.ones((3, 4), bool), None, 5), ArgumentError, "seq_q and seq_kv wanted left out, or as the mask's (3, 4),"),
        ((splat.causal(), None, -1), PatternError, "seq_q: wanted an integer >= 0, got -1."),
        ((splat.documents((3, 4)), None, 9), PatternError, "lengths: wanted documents of 9 tokens for seq_q"),
    ],
)
def test_bad_arguments_are_refused_by_name(arguments, error, message):
    mask, ax, seq_q = (*arguments, None, None)[:3]
    with pytest.raises(error) as raised:
        splat.draw(mask, ax, seq_q=seq_q)
    assert str(raised.value).startswith(message)


def test_without_matplotlib_draw_says_what_to_install():
    with mock.patch("splat_numba.pictures.axes.has_matplotlib", return_value=False), pytest.raises(BackendError) as no:
        splat.draw(splat.causal())
    assert str(no.value).startswith("ax wanted as axes, or matplotlib for new ones, which is not installed. Run: pip")


def test_notebooks_and_the_import_need_no_matplotlib():
    code = "import sys; sys.modules['matplotlib'] = None\nimport splat_numba as splat\n"
    code += "assert not [n for n in sys.modules if n.startswith(('splat_numba.pictures', 'rich'))]\n"
    assert python(code + "print('<svg' in splat.window(8)._repr_html_())") == "True"
