"""What is asked of a call's further arguments. Dynamo reads this, and so nothing of autograd's stands here: within a
function of torch.compile it would look at gradients.
"""

from __future__ import annotations

from typing import Any

import torch

from flurka_numba.checks import GRADIENTS
from splat_numba.runtime.tensors import check_tensor


def check_omega(omega: Any) -> None:
    """Raise ArgumentError for random rows that want a gradient."""
    if isinstance(omega, torch.Tensor) and omega.requires_grad and torch.is_grad_enabled():
        check_tensor("omega", omega, GRADIENTS)


def as_tensor(given: Any) -> Any:
    """An array or list as a tensor of the host, whatever the default device is; tensors and None as they are."""
    return given if given is None or isinstance(given, torch.Tensor) else torch.as_tensor(given, device="cpu")
