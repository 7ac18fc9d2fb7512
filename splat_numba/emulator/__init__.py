"""Runs the text of a GPU kernel on NumPy: the same statements, a vector of 32 lanes in place of each thread's number."""
