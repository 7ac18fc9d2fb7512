"""What pages put beside other libraries' calls keeps what those keep: snippets of theirs run on stand-ins that do what
their documentation says (their_masks.py), ours as they are written.
"""

import ast
import re
import sys
from itertools import pairwise

import numpy as np
import pytest

import splat_numba as splat
from tests import their_masks
from tests.documentation import ROOT, blocks_of, table_below

PAGE = ROOT / "docs" / "migration.md"
LENGTHS = [(40, 40), (23, 61), (61, 23), (1, 30)]


def pairs():
    """(their text, ours) of every library, by its name."""
    found = {}
    for theirs, ours in pairwise(blocks_of(PAGE)):
        if theirs.words == ["python", "theirs"]:
            library = re.match(r"from (\w+)", theirs.text)[1]
            assert ours.words == ["python"]
            found[library] = (theirs.text, ours.text)
    return found


@pytest.fixture
def stand_ins(monkeypatch):
    for name, module in their_masks.stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)


def random_arrays(*shape):
    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape) for _ in range(3)]


def run_theirs(library, wanted, **given):
    """The value of the name ``wanted`` that their text assigns, without its other assignments: shapes differ."""
    tree = ast.parse(pairs()[library][0])
    tree.body = [one for one in tree.body if not isinstance(one, ast.Assign) or one.targets[0].id in {"bias", wanted}]
    space = dict(given)
    exec(compile(tree, PAGE.name, "exec"), space)  # noqa: S102 - of the page
    return space[wanted]


def run_ours(library):
    space = {"splat": splat, "np": np}
    exec(pairs()[library][1], space)  # noqa: S102 - of the page
    return space


def kept(mask, seq_q, seq_kv):
    return splat.ACSR.from_pattern(mask, seq_q, seq_kv).to_dense()


def agree(out, q, k, v, mask, rows=slice(None)):
    """Our attention, in float64 too, is theirs."""
    ours = splat.attention(q, k, v, mask, layout="bshd", backend="cpu")
    np.testing.assert_allclose(ours[:, rows], out[:, rows], atol=1e-12)


def test_every_pair_of_the_page_is_here():
    assert [*pairs()] == ["xformers", "flash_attn", "natten"]


@pytest.mark.usefixtures("stand_ins")
def test_xformers_masks_keep_what_ours_keep():
    ours, bias, documents = run_ours("xformers"), run_theirs("xformers", "bias"), run_theirs("xformers", "documents")
    for seq_q, seq_kv in ((700, 700), (600, 900), (900, 600)):
        np.testing.assert_array_equal(kept(ours["bias"], seq_q, seq_kv), bias(seq_q, seq_kv))
    total = 611 + 203 + 1500
    np.testing.assert_array_equal(kept(ours["documents"], total, total), documents(total, total))
    q, k, v = random_arrays(1, 700, 1, 8)
    q = q[:, :600]
    agree(run_theirs("xformers", "out", q=q, k=k, v=v), q, k, v, ours["bias"])


@pytest.mark.usefixtures("stand_ins")
def test_flash_attention_gives_what_ours_gives():
    q, k, v = random_arrays(1, 2314, 1, 8)
    ours = run_ours("flash_attn")
    for seq_q in (2314, 1300):
        theirs = run_theirs("flash_attn", "out", q=q[:, :seq_q], k=k, v=v)
        agree(theirs, q[:, :seq_q], k, v, ours["mask"])
    given = {"q": q[0], "k": k[0], "v": v[0], "cu_seqlens": ours["cu_seqlens"], "longest": 1500}
    agree(run_theirs("flash_attn", "packed", **given)[None], q, k, v, ours["packed"])


@pytest.mark.usefixtures("stand_ins")
def test_natten_s_windows_are_ours_but_for_those_at_borders_which_it_shifts():
    mask = run_ours("natten")["mask"]
    theirs = their_masks.natten_grid(64, 64, 13, 2)
    ours = kept(mask, 4096, 4096)
    y, x = np.divmod(np.arange(4096), 64)
    reach = 13 // 2 * 2
    inside = (np.minimum(y, x) >= reach) & (np.maximum(y, x) < 64 - reach)
    np.testing.assert_array_equal(ours[inside], theirs[inside])
    assert (theirs.sum(1) == 13 * 13).all()
    # A shifted window and one that is cut: ours is what theirs and a centred window of that reach have in common.
    near = (np.abs(y[:, None] - y) <= reach) & (np.abs(x[:, None] - x) <= reach)
    np.testing.assert_array_equal(ours, theirs & near)
    share = (ours != theirs).any(1).mean()
    page = " ".join(PAGE.read_text(encoding="utf-8").split())
    assert f"{100 * share:.0f} % of the rows of this example differ" in page
    q, k, v = random_arrays(1, 64, 64, 1, 8)
    out = run_theirs("natten", "out", q=q, k=k, v=v)
    agree(out.reshape(1, 4096, 1, 8), *(one.reshape(1, 4096, 1, 8) for one in (q, k, v)), mask, inside)


def table():
    """Rows of the table of other libraries' masks whose masks stand in their_masks.py."""
    for there, here in table_below(PAGE, "## In short"):
        library, _, call = there.partition(" ")
        if library == "xFormers":
            yield pytest.param(call.strip("`"), here.strip("`"), id=call.strip("`"))


@pytest.mark.parametrize(("there", "here"), list(table()))
def test_xformers_masks_of_the_table_are_ours(there, here):
    bias = their_masks.stand_ins()["xformers.ops"].fmha.attn_bias
    for left, right, n, lengths in ((5, 3, 1, [7, 1, 22]), (0, 0, 9, [30]), (70, 2, 40, [1, 29])):
        names = {"splat": splat, "left": left, "right": right, "n": n, "lengths": lengths}
        theirs, ours = eval(f"bias.{there}", names | {"bias": bias}), eval(here, names)  # noqa: S307 - of the page
        for sizes in [(30, 30)] if "lengths" in there else LENGTHS:
            np.testing.assert_array_equal(kept(ours, *sizes), theirs(*sizes))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window_size", [(-1, -1), (5, 0), (0, 5), (4, 3), (-1, 6), (6, -1), (100, 100)])
def test_flash_attention_s_windows_of_the_table_are_ours(window_size, causal):
    ours = splat.from_flash_attention(window_size, causal=causal)
    for sizes in LENGTHS:
        theirs = their_masks.flash(causal=causal, window_size=window_size)
        np.testing.assert_array_equal(kept(ours, *sizes), theirs(*sizes))
