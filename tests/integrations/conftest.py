"""Frameworks deprecate parts that they use themselves: such warnings are not ours to mend."""

from pathlib import Path

import pytest

ITS_OWN = {
    "torch": (
        "ignore::DeprecationWarning",
        "ignore:`torch.jit:FutureWarning",
        "ignore:The .grad attribute of a Tensor",
    ),
    "transformers": ("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning:transformers"),
}


def pytest_collection_modifyitems(items):
    for item in items:
        for folder, warnings in ITS_OWN.items():
            if Path(__file__).parent / folder in item.path.parents:
                for warning in warnings:
                    item.add_marker(pytest.mark.filterwarnings(warning))
