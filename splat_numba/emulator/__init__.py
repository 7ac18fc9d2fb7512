"""Runs the text of a GPU kernel on NumPy: the same statements, with a vector of 32 lanes for each number."""
