"""Modules of frameworks say what to install where it is missing, whatever else is."""

import subprocess
import sys

import pytest

NEEDED = {
    "jax": ("jax", "JAX: python -m pip install jax"),
    "torch": ("torch", "PyTorch: python -m pip install torch"),
    "transformers": ("torch", "transformers and PyTorch: python -m pip install transformers torch"),
}


@pytest.mark.parametrize("name", NEEDED)
def test_a_module_says_what_it_needs(name):
    missing, words = NEEDED[name]
    text = f"""
import sys
sys.modules["{missing}"] = None
try:
    import splat_numba.integrations.{name}
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"splat_numba.integrations.{name} needs {words}"
