"""Schedules as programs that XLA calls."""
