"""What all tests of models need."""

import pytest


@pytest.fixture(autouse=True)
def one_thread():
    """Small models wait for each other's threads most of the time where workers share cores: 20 times as long."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
