"""CPU target: a plan becomes Python source for Numba, with explicit SIMD from runtime.simd.

Lanes are queries. A tile of scores is kept as (keys, queries), so that a key's head_dim numbers are scalars that
multiply vectors of queries: keys and values are read where they lie, at any stride, and never packed or transposed.
"""
