"""PyTorch and transformers deprecate parts that they use themselves: such warnings are not ours to mend."""

from pathlib import Path

import pytest

ITS_OWN = ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:transformers")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in ITS_OWN:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def one_thread():
    """Small models wait for each other's threads most of the time where workers share cores: 20 times as long."""
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
