"""The emulator as a backend."""
