"""Frameworks with GPU arrays: what calls ask of them (framework), one file each, and whose an array is (lookup)."""

from splat_numba.runtime.cuda.frameworks.copied import OURS as OURS
from splat_numba.runtime.cuda.frameworks.framework import Framework as Framework
from splat_numba.runtime.cuda.frameworks.interface import CUPY as CUPY
from splat_numba.runtime.cuda.frameworks.interface import NUMBA as NUMBA
from splat_numba.runtime.cuda.frameworks.jax_buffers import JAX as JAX
from splat_numba.runtime.cuda.frameworks.lookup import describe as describe
from splat_numba.runtime.cuda.frameworks.lookup import describe_operand as describe_operand
from splat_numba.runtime.cuda.frameworks.lookup import framework_of as framework_of
from splat_numba.runtime.cuda.frameworks.lookup import known_framework as known_framework
from splat_numba.runtime.cuda.frameworks.lookup import known_keys as known_keys
from splat_numba.runtime.cuda.frameworks.pytorch import TORCH as TORCH
