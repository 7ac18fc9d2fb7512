"""Executors: how each backend plans, compiles, remembers and runs attention."""
