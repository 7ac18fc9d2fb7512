"""Attention as an operation of JAX."""
