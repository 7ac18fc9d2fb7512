"""The language model of examples/, at a reduced size: its losses fall, and are dense masked attention's."""

import runpy
import sys
from pathlib import Path

import numpy as np

from tests.integrations.torch.ways import torch  # noqa: F401 - or the test is skipped

EXAMPLE = Path(__file__).parents[3] / "examples" / "train_torch_language_model.py"


def test_losses_are_dense_masked_attention_s(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--steps", "12", "--seq", "256", "--batch", "1"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    head, *rows, seconds = capsys.readouterr().out.splitlines()
    losses = np.array([row.split()[1:] for row in rows], float)
    assert (head.split()[:2], seconds.split()[0], len(rows)) == (["step", "splat"], "time", 7)
    np.testing.assert_allclose(losses[:, 0], losses[:, 1], atol=2e-3)
    assert losses[-1, 0] < losses[0, 0] - 1
