"""Texts in float32 on the FMA units, for every shape, dtype and method: products of matrices, and rows one by one."""
