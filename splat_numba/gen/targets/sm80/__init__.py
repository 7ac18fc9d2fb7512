"""Attention on tensor cores that every GPU from Ampere on has: a warp's matrix products, and copies in the background."""
