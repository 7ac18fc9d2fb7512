"""Gradients on Hopper: two kernels that both make the weights again, one for queries, one for keys and values.

dq = scale dS K walks the mask's rows; dk = scale dS^T Q and dv = P^T dO walk the transposed mask's. Each gradient has
one owner, so nothing is added up between blocks, bits repeat, and nothing of the size of the mask is stored. It takes
seven matrix products a tile where five would do with dS in memory.
"""
