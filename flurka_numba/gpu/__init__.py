"""Hopper GPUs: plans of stages, calls made ready, launches; composed/ has what tensor cores have no texts for."""
