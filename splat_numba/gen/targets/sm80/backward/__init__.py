"""Gradients by a warp's matrix products: dq along the mask's rows, dk and dv along those of the transposed mask."""
