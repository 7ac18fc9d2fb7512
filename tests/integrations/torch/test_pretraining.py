"""The pretraining of examples/, at a reduced size: losses fall, and a training that stops goes on as if it had not."""

import itertools
import json
import math
import time
from pathlib import Path

import numpy as np
import pytest

from tests.integrations.torch.ways import torch

EXAMPLES = Path(__file__).parents[3] / "examples"
METHODS = ("dense", "low_rank", "kernel", "flurka", "none")


@pytest.fixture(autouse=True)
def example(monkeypatch):
    """The script, on one thread, with a clock on which every step takes 1/256 s: 39 steps of training, 13 of tuning."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import flurka_pretraining

    ticks = itertools.count()
    monkeypatch.setattr(flurka_pretraining.Training, "_now", lambda _self: next(ticks) / 256)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield flurka_pretraining
    torch.set_num_threads(threads)


def training_of(example, method):
    from pretraining.text import held_out

    setting, text = example.PRESETS["ci"], example.read_text([Path(__file__)])
    task = example.Task("training", 64, method, 0, 1e-2, setting.seconds)
    return example.Training(task, setting, text.training, held_out(text.tuning, 64, setting))


def test_every_method_learns_and_is_not_trained_twice(example, tmp_path, capsys):
    given = ["--preset", "ci", "--output", str(tmp_path), "--text", str(Path(__file__))]
    example.main(given)
    held = json.loads((tmp_path / "flurka_pretraining_ci.json").read_text())
    trained = [run for run in held["runs"] if run["purpose"] == "training"]
    assert [run["method"] for run in trained] == list(METHODS)
    assert len(held["runs"]) == 5 * len(METHODS)  # each with two rates from two seeds before
    for run in trained:
        tried = [one for one in held["runs"] if (one["purpose"], one["method"]) == ("tuning", run["method"])]
        losses = {rate: sum(one["points"][-1][2] for one in tried if one["rate"] == rate) for rate in (3e-3, 1e-2)}
        assert run["rate"] == min(losses, key=losses.get)
        assert run["steps"] == 39
        assert run["points"][-1][2] < run["points"][0][2] - 2
    assert "finished:" in capsys.readouterr().out
    example.main(given)
    assert "tuning" not in capsys.readouterr().out
    assert "| FLuRKA |" in (tmp_path / "flurka_pretraining_ci.md").read_text()
    with pytest.raises(SystemExit, match=r"^--output wanted without results, or with some of setting"):
        example.main([*given, "--rank", "16"])


@pytest.mark.parametrize("method", ["dense", "flurka"])
def test_a_training_that_stops_goes_on_as_if_it_had_not(example, method, tmp_path, monkeypatch):
    whole = training_of(example, method)
    assert whole.run(math.inf)
    monkeypatch.setattr(time, "monotonic", itertools.count().__next__)
    first, second = training_of(example, method), training_of(example, method)
    assert not first.run(7)
    assert first.progress.steps == 8
    first.save(tmp_path / "state.pt")
    second.load(tmp_path / "state.pt")
    assert second.run(math.inf)
    assert second.progress.points == whole.progress.points


def test_what_counts_nowhere_changes_nothing(example):
    training = training_of(example, "kernel")
    before = [one.clone() for one in training.model.parameters()]
    training._warm()
    assert all(map(torch.equal, before, training.model.parameters()))
    assert all(one.grad is None for one in training.model.parameters())


@pytest.mark.usefixtures("example")
def test_masked_bytes_are_hidden_and_repeat():
    from pretraining.text import MASK, draw

    text = np.arange(1000).astype(np.uint8)
    batch, again = (draw(text, 64, 3, (4, 5), "cpu") for _ in range(2))
    assert torch.equal(batch.tokens, again.tokens)
    assert not torch.equal(batch.tokens, draw(text, 64, 3, (4, 6), "cpu").tokens)
    hidden = batch.tokens == MASK
    assert hidden.sum(dim=1).tolist() == [10, 10, 10]
    whole = batch.tokens.flatten().index_copy(0, batch.places, batch.answers).view(3, 64)
    assert torch.equal(whole.diff(dim=1) % 256, torch.ones(3, 63, dtype=torch.int64))
    assert torch.equal(hidden.flatten().nonzero().flatten(), batch.places.sort().values)


def test_parts_of_the_text_share_nothing(example, tmp_path):
    for name, numbers in (("a", range(100)), ("b", range(100, 200))):
        (tmp_path / name).write_bytes(bytes(numbers))
    text = example.read_text([tmp_path / "a", tmp_path / "b"])
    parts = text.training, text.tuning, text.reported
    assert np.array_equal(np.concatenate(parts), np.arange(200))
    assert [len(part) for part in parts] == [180, 10, 10]


def test_models_differ_in_their_attention_alone(example):
    sizes = {method: sum(one.numel() for one in training_of(example, method).model.parameters()) for method in METHODS}
    width, rank, seq = 32, 8, 64
    assert sizes["dense"] == sizes["kernel"]
    assert sizes["low_rank"] == sizes["flurka"] == sizes["dense"] + 2 * rank * seq
    assert sizes["dense"] == sizes["none"] + 4 * width**2 + 2 * width  # and its norm


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            ["--seq", "100"],
            "--seq wanted as a multiple of --rank 64 that divides --tokens 2048, got 100. Change one of them.",
        ),
        (
            ["--preset", "cuda", "--clock", "process"],
            "--clock wanted as wall on a GPU, whose time no process is charged with, got process. Leave it out.",
        ),
    ],
)
def test_what_does_not_fit_is_refused(example, given, message, capsys):
    with pytest.raises(SystemExit):
        example.parse(given)
    assert capsys.readouterr().err.endswith(f"error: {message}\n")
