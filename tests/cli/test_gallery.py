"""gallery: every mask is drawn, said where it is from, and kept in a file."""

from unittest import mock

import pytest

import splat_numba as splat
from splat_numba.cli import gallery
from splat_numba.formats import patterns
from splat_numba.formats.drawing import natural_lengths
from tests.cli.command_run import run, table_rows


def test_every_mask_has_a_picture_a_density_and_an_origin(capsys):
    status, out, err = run(capsys, "gallery")
    assert (status, err) == (0, "")
    rows = table_rows(out)
    assert list(rows) == [text for text, _ in gallery.GALLERY]
    assert len(rows) >= 20
    for text, origin in gallery.GALLERY:
        pattern = splat.parse(text)
        density, lengths, shown = rows[text]
        kept = splat.ACSR.from_pattern(pattern, *natural_lengths(pattern))
        assert float(density.rstrip("%")) == pytest.approx(100 * kept.density, abs=0.51)
        assert (lengths, shown) == (f"{kept.shape[0]} x {kept.shape[1]}", origin)
    assert out.count("┌") == len(rows)


def test_every_constructor_is_in_the_gallery():
    texts = " ".join(text for text, _ in gallery.GALLERY)
    assert [name for name in patterns.__all__ if name != "Pattern" and f"{name}(" not in texts] == []


def test_ones_own_masks_go_into_a_file(capsys, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "mine.png"
    status, out, err = run(capsys, "gallery", "--pattern", "window(9)", "--plot", str(file))
    assert (status, err) == (0, "")
    assert list(table_rows(out)) == ["window(9)"]
    assert file.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--pattern", "windw(9)"), "error: --pattern windw(9): wanted a pattern such as"),
        (("--pattern", "documents((3, 4)) & neighborhood((2, 2), 3)"), "error: --pattern documents((3, 4)) & neigh"),
        (("--plot", "mine.nothing"), "error: --plot wanted a file ending in one of"),
    ],
)
def test_what_cannot_be_drawn_is_said_in_a_line(capsys, arguments, message):
    status, _, err = run(capsys, "gallery", *arguments)
    assert status == 2
    assert err.startswith(message), err
    assert len(err.splitlines()) == 1


def test_without_matplotlib_a_file_is_refused(capsys):
    with mock.patch("splat_numba.cli.plotting.has_matplotlib", return_value=False):
        status, _, err = run(capsys, "gallery", "--plot", "mine.png")
    assert (status, err) == (2, 'error: --plot needs matplotlib. Run: pip install "splat-numba[plot]"\n')
