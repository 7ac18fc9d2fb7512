"""Modules in two processes on the CPU: losses and gradients are those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
ROOT = Path(__file__).parents[3]


@pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()), reason="PyTorch without gloo"
)
def test_wrappers_agree_with_one_process_and_dtensors_are_refused(tmp_path):
    command = [sys.executable, "-W", "ignore", str(Path(__file__).with_name("distributed_run.py"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    both = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store")], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(2)
    ]  # fmt: skip
    try:
        said = [one.communicate(timeout=120) for one in both]
    finally:
        for one in both:
            one.kill()
    for one, (out, problems) in zip(both, said, strict=True):
        assert one.returncode == 0, problems
        assert out.splitlines() == [
            "DistributedDataParallel agrees",
            "fully_shard agrees",
            "FullyShardedDataParallel agrees",
            "heads of each process agrees",
            "True True",
            "False True",
            "local_map agrees",
        ]
