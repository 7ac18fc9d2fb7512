"""Passes of a CPU: rows with closed bounds or with tables of pieces, what they cover and what they cost."""
