"""The gallery: the masks of `splat-numba gallery` as pictures, and what each keeps and computes at a length of use."""

from __future__ import annotations

from html import escape

from splat_numba import parse
from splat_numba.cli.gallery import GALLERY, masks_of
from splat_numba.executors.plans import plan_for
from splat_numba.formats.raster import mask_picture
from splat_numba.gen.plans.machine import Machine
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.pictures.svg import svg

SEQ = 4096
# Plans are made for one CPU, whichever machine builds the site: its pages say the same everywhere.
CPU, CPU_WORDS = Machine(vector_bytes=32, cores=2), "a CPU with AVX2"
PROBLEM = Problem(batch=1, heads_q=8, heads_kv=8, seq_q=SEQ, seq_kv=SEQ, head_dim=64, value_dim=64, dtype="float32")
DOTS = 64
ARXIV = "https://arxiv.org/abs/"
# Of every mask of the command: the same at SEQ tokens, and the paper (its number at arXiv).
AT_WORK = {
    "full()": ("full()", "1706.03762"),
    "causal()": ("causal()", "1706.03762"),
    "causal().align_end()": ("causal().align_end()", "2307.08691"),
    "window(64)": ("window(256)", "2004.05150"),
    "window(64, 0)": ("window(512, 0)", "2310.06825"),
    "(window(64, 0) | sinks(4)) & causal()": ("(window(512, 0) | sinks(4)) & causal()", "2309.17453"),
    "prefix(64)": ("prefix(512)", "1910.10683"),
    "documents((70, 40, 110, 36)) & causal()": ("documents((1120, 640, 1760, 576)) & causal()", "2107.02027"),
    "blocked(64)": ("blocked(512)", "1911.02972"),
    "blocked(32, 1, 1)": ("blocked(128, 1, 1)", "1802.05751"),
    "dilated(16, 4)": ("dilated(128, 4)", "2307.02486"),
    "strided(16) & causal()": ("strided(16) & causal()", "1904.10509"),
    "columns(32, 28, 4) & causal()": ("columns(128, 120, 8) & causal()", "1904.10509"),
    "sparse_transformer_strided(32)": ("sparse_transformer_strided(128)", "1904.10509"),
    "sparse_transformer_fixed(32, 4)": ("sparse_transformer_fixed(128, 8)", "1904.10509"),
    "global_tokens(16)": ("global_tokens(64)", "2004.08483"),
    "longformer(32, 16)": ("longformer(256, 64)", "2004.05150"),
    "random_blocks(16, 3, 0)": ("random_blocks(64, 3, 0)", "2007.14062"),
    "bigbird(16)": ("bigbird(64)", "2007.14062"),
    "neighborhood((16, 16), 5)": ("neighborhood((64, 64), 13)", "2204.07143"),
    "neighborhood((16, 16), 5, dilation=2)": ("neighborhood((64, 64), 13, dilation=2)", "2209.15001"),
    "neighborhood((6, 6, 6), 3)": ("neighborhood((16, 16, 16), 5)", "2504.16922"),
}


def gallery() -> str:
    """All masks as HTML, a box each. Raises KeyError for one of the command's that has no line above."""
    cards = [
        _card(text, svg(mask_picture(shown.mask, DOTS)), shown.mask.density, shown.origin)
        for (text, _), shown in zip(GALLERY, masks_of(None), strict=True)
    ]
    return f'<div class="masks">\n{"".join(cards)}</div>\n'


def _card(text: str, picture: str, density: float, origin: str) -> str:
    long, paper = AT_WORK[text]
    cost = plan_for(parse(long), PROBLEM, CPU, None, Conditions()).cost
    facts = (
        ("from", f'{escape(origin)} (<a href="{ARXIV}{paper}">arXiv {paper}</a>)'),
        ("density drawn", f"{density:.1%}"),
        (f"at {SEQ:,} tokens", f"<code>{escape(long)}</code>"),
        ("keeps there", f"{cost.kept / SEQ**2:.2%}"),
        ("computes there", f"{cost.area / SEQ**2:.2%} of dense attention's pairs"),
    )
    rows = "".join(f"<dt>{name}</dt><dd>{words}</dd>" for name, words in facts)
    return f'<div class="mask">{picture}<p><code>{escape(text)}</code></p><dl>{rows}</dl></div>\n'
