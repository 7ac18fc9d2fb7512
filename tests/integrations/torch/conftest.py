"""PyTorch deprecates parts that it uses itself: such warnings are not ours to mend."""

from pathlib import Path

import pytest

ITS_OWN = ("ignore::DeprecationWarning", "ignore:`torch.jit:FutureWarning", "ignore:The .grad attribute of a Tensor")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for warning in ITS_OWN:
                item.add_marker(pytest.mark.filterwarnings(warning))
