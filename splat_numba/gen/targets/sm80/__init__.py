"""Attention on the tensor cores of every GPU from Ampere on: a warp's matrix products, copies in the background."""
