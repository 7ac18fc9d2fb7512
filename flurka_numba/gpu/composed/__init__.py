"""Calls in float32 on the FMA units, composed of a few texts over matrices."""
