"""A GPU's plans run by the emulator, on NumPy: the same texts without a GPU."""
