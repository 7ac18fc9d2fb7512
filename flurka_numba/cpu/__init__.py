"""CPUs: stages as compiled kernels, forward and back."""
