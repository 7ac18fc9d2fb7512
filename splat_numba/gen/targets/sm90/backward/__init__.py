"""Gradients on Hopper: one kernel of queries, one of keys and values, both of which make the weights again.

dq = scale dS K walks the mask's rows; dk = scale dS^T Q and dv = P^T dO walk the transposed mask's. Each gradient has
one owner, so nothing is added up between blocks, and bits repeat. It takes seven matrix products a tile, and nothing of
the mask's size is stored; or five, where the kernel of keys keeps dS in memory for the one of queries.
"""
