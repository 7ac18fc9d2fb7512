"""NVIDIA GPUs: which target, plans of Hopper's stages, calls made ready, launches; composed/ has all other calls."""
