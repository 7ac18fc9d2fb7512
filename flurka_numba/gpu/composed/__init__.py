"""Calls composed of a few texts over matrices, whose products are made on FMA units or on tensor cores."""
