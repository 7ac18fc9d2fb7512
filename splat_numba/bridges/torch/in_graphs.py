"""What stands in Dynamo's graphs as one call. Imported by a trace alone, because it needs Dynamo."""

from __future__ import annotations

import torch

from splat_numba.bridges.torch.autograd import whole

# Without this Dynamo traces into the Function, and torch.compile(torch.func.grad(f)) gives zeros in silence:
# pytorch#193279.
torch.compiler.allow_in_graph(whole)

__all__ = ["whole"]
