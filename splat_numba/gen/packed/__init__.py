"""Masks of the packed operators: their rows as runs, in groups, lists, parts and tiles."""
