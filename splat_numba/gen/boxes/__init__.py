"""Passes of a GPU: boxes of strided views, how they are searched for, what they cover and what they cost."""
