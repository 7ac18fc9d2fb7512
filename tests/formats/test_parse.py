"""Text in the language of repr, read safely."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from splat_numba.errors import PatternError, PatternTypeError
from splat_numba.formats import patterns as p
from splat_numba.formats.parse import parse
from tests.formats.pattern_cases import closed_leaves, combined, open_leaves


@given(combined(st.one_of(closed_leaves, open_leaves), most=6))
def test_parse_reads_what_repr_writes(pattern):
    assert parse(repr(pattern)) == pattern


@pytest.mark.parametrize(
    ("text", "pattern"),
    [
        ("window(512) | sinks(4)", p.window(512) | p.sinks(4)),
        ("  window( 512,right = 0 )&causal() ", p.window(512, 0) & p.causal()),
        ("sinks(1) | window(2) & causal()", p.sinks(1) | (p.window(2) & p.causal())),
        ("(sinks(1) | window(2)).align_end()", (p.sinks(1) | p.window(2)).align_end()),
        ("documents([2, 3])", p.documents((2, 3))),
        ("global_tokens((0, 7))", p.global_tokens((0, 7))),
        ("neighborhood((4, 4), kernel=3)", p.neighborhood((4, 4), 3)),
        ("longformer(256, n_global=4)", p.longformer(256, 4)),
        ("bigbird(64, seed=3)", p.bigbird(64, seed=3)),
        ("window(4, None)", p.window(4)),
        ("window(\n4)\n| sinks(1)", p.window(4) | p.sinks(1)),
    ],
)
def test_the_language(text, pattern):
    assert parse(text) == pattern


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "windw(4) | sinks(1)",
            (
                "text: wanted a pattern such as 'window(512) | sinks(4)', got 'windw' at column 1. 'windw' is not a "
                "constructor: did you mean 'window'?"
            ),
        ),
        (
            "causal() | window",
            "text: wanted a pattern such as 'window(512) | sinks(4)', got 'window' at column 12. Call it: window(...).",
        ),
        (
            "causal() or full()",
            (
                "text: wanted a pattern such as 'window(512) | sinks(4)', got 'causal() or full()' at column 1. "
                "Combine patterns with | and &, not with 'or' and 'and'."
            ),
        ),
        (
            "causal().align_start()",
            (
                "text: wanted a pattern such as 'window(512) | sinks(4)', got 'causal().align_start()' at column 1. "
                "The only method is .align_end(), without arguments."
            ),
        ),
        (
            "window(2 + 2)",
            (
                "text: wanted a pattern such as 'window(512) | sinks(4)', got '2 + 2' at column 8. Arguments are "
                "integers, or tuples and lists of integers."
            ),
        ),
        ("window(-1)", "left: wanted an integer >= 0, got -1. Give at least 0. (in 'window(-1)' at column 1)"),
        (
            "causal(1)",
            (
                "text: wanted the arguments of causal, got 'causal(1)' at column 1: causal() takes 0 positional "
                "arguments but 1 was given. See help(causal)."
            ),
        ),
        (
            "window(4",
            (
                "text: wanted an expression such as 'window(512) | sinks(4)', got 'window(4': '(' was never closed at "
                "column 7. Check parentheses and operators."
            ),
        ),
    ],
)
def test_messages_name_the_place(text, message):
    with pytest.raises(PatternError) as caught:
        parse(text)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "3",
        "window(3.0)",
        "window(True)",
        "window('3')",
        "window(*(1, 2))",
        "window(**{})",
        "__import__('os').system('true')",
        "causal().__class__",
        "causal().align_end(1)",
        "causal().align_end",
        "causal() + full()",
        "~causal()",
        "not causal()",
        "causal() if full() else full()",
        "[causal()]",
        "lambda: causal()",
        "Pattern()",
        "(x := causal())",
        "causal(); full()",
        "window(4)\x00",
        "window(" + "9" * 5000 + ")",
        "(" * 500 + "causal()" + ")" * 500,
        "|".join(["causal()"] * 9000),
        "x" * 200_000,
        "f'{causal()}'",
        "documents((2, (3,)))",
        "random_blocks(4, 1)",
        "causal() == causal()",
        "window(left=1, left=2)",
        "causal() # | full()",
        "causal()\nfull()",
        "window(-(1, 2))",
        "causal(\ud800)",
    ],
)
def test_anything_else_is_refused_with_a_pattern_error(text):
    with pytest.raises(PatternError) as caught:
        parse(text)
    assert len(str(caught.value)) < 500


def test_a_value_that_is_not_text_is_a_type_error():
    with pytest.raises(PatternTypeError, match=r"^text: wanted a str such as"):
        parse(p.causal())


@given(st.text(max_size=30))
def test_random_text_gives_a_pattern_or_a_pattern_error(text):
    with contextlib.suppress(PatternError):
        assert isinstance(parse(text), p.Pattern)
