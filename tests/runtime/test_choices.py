"""Stored choices: read as written, for their own facts and candidates; whatever is damaged is a miss."""

import json

import pytest

from splat_numba.runtime.choices import Choices

NAMES = ("rows in order: 128 x 80", "rows in order: 64 x 64")
SECONDS = {NAMES[0]: 1.25e-4, NAMES[1]: 3e-5}
FACTS = {"mask": "causal()", "problem": {"seq_q": 8}, "gpu": "NVIDIA H200", "version": "1"}


@pytest.fixture
def store(tmp_path):
    found = Choices.of(tmp_path, FACTS, NAMES)
    found.write(SECONDS)
    return found


def test_what_was_written_is_read(store, tmp_path):
    again = Choices.of(tmp_path, FACTS, NAMES)
    assert (again, again.read()) == (store, SECONDS)
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_nothing_stored_is_a_miss(tmp_path):
    assert Choices.of(tmp_path, FACTS, NAMES).read() is None


@pytest.mark.parametrize("name", FACTS)
def test_other_facts_are_another_choice(store, tmp_path, name):
    assert Choices.of(tmp_path, FACTS | {name: "another"}, NAMES).read() is None
    assert store.read() == SECONDS


@pytest.mark.usefixtures("store")
def test_other_candidates_are_another_choice(tmp_path):
    assert Choices.of(tmp_path, FACTS, NAMES[:1]).read() is None
    assert Choices.of(tmp_path, FACTS, NAMES[::-1]).read() is None


DAMAGE = {
    "empty": lambda _: "",
    "cut short": lambda text: text[:-9],
    "another digit": lambda text: text.replace("1.25", "1.26").replace("0.000125", "0.000126"),
    "noise": lambda _: "\x00\xff" * 9,
    "a list": lambda _: "[]",
    "null": lambda _: "null",
    "no seconds": lambda text: json.dumps({"sha256": json.loads(text)["sha256"]}),
    "words": lambda text: json.dumps({**json.loads(text), "seconds": dict.fromkeys(NAMES, "fast")}),
    "a number beyond floats": lambda text: json.dumps({**json.loads(text), "seconds": dict.fromkeys(NAMES, 10**400)}),
    "nested too deeply": lambda _: "[" * 100_000,
    "no numbers": lambda text: json.dumps({**json.loads(text), "seconds": [1, 2]}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_a_miss(store, damage):
    text = store.path.read_text()
    changed = DAMAGE[damage](text)
    assert changed != text
    store.path.write_text(changed, encoding="latin-1")
    assert store.read() is None
    store.write(SECONDS)
    assert store.read() == SECONDS


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_times_that_cannot_be_are_a_miss(store, value):
    store.write({**SECONDS, NAMES[0]: value})
    assert store.read() is None
