"""Gradients on FMA units: levels of the queries, dq along the mask's rows, dk and dv along those of the transposed."""
