"""Runs generated texts on NumPy: a GPU's with a vector of 32 lanes for each number, a CPU's over checked memory."""
