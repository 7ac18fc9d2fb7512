"""Hopper (compute capability 9.0): warpgroup matrix products fed by the tensor-copy engine."""
