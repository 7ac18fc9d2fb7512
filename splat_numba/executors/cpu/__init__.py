"""CPUs: how their calls are planned, compiled and run."""
