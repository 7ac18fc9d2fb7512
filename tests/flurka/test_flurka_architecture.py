"""Who may import whom in flurka_numba, what it may use of splat_numba, and what an import costs."""

import sys
from pathlib import Path

import pytest

import flurka_numba
from tests.import_layers import check_layers, imports_of, python

ROOT = Path(flurka_numba.__file__).parent

# A module imports only from its own part and from parts with a lower number. A new part needs a line here.
LAYERS = {
    "expressions": 0,
    "feature_maps": 1,
    "problem": 2,
    "heads": 3,
    "checks": 3,
    "regime": 3,
    "reference": 4,
    "executor": 4,
    "operands": 5,
    "targets": 6,
    "cpu": 7,
    "gpu": 7,
    "emulated": 8,
    "backends": 9,
    "bridges": 9.5,
    "api": 10,
    "gradients": 10.5,
    "layer_parameters": 10,
    "layer": 11,
    "__init__": 12,
}
MODULES = sorted(path.relative_to(ROOT) for path in ROOT.rglob("*.py"))
PURE = ["expressions.py", "feature_maps.py", "problem.py", "heads.py", "checks.py", "regime.py", "reference.py"]
# Of splat_numba: what knows nothing of masks. Its attention's launches as well, in low-rank attention on a GPU.
SHARED = ("errors", "memory", "settings", "plain", "signatures", "arguments", "runtime")
SHARED += ("gen.language", "gen.schedules.array_schedule", "gen.plans.machine")
SHARED += ("bridges.torch.watch", "bridges.torch.door", "bridges.torch.functions", "bridges.torch.folding")
SHARED += ("bridges.torch.in_graphs", "executors.jax.explicit", "executors.jax.manual", "executors.jax.operations")
SHARED += ("executors.jax.platforms",)
OF_MASKS = ("arguments.masks", "arguments.dense_masks", "arguments.alignment")
GPU_SHARED = ("gen.schedules", "gen.targets", "emulator")
GPU_SHARED += (
    "executors.gpu.parts",
    "executors.gpu.executor",
    "gen.plans.plan",
    "gen.plans.problem",
    "gen.plans.explain",
    "gen.plans.backward",
)
OF_GPUS = {"gpu", "emulated", "sm90", "sm80", "simt", "gpu_text.py", "jax_gpu.py", "layer_parameters.py"}
HEAVY = ["numba", "torch", "jax", "matplotlib", "hypothesis", "scipy", "cupy"]


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_go_down_the_layers_only(path):
    check_layers(ROOT, path, LAYERS)


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_only_the_shared_parts_of_splat_numba_are_used(path):
    for name in imports_of(ROOT / path):
        package, _, inner = name.partition(".")
        if package != "splat_numba":
            continue
        on_gpu = {"gpu", "emulated", "sm90", "sm80", "simt", "gpu_text.py", "jax_gpu.py", "layer_parameters.py"} & {
            *path.parts
        }
        allowed = SHARED + GPU_SHARED if on_gpu else SHARED
        shared = any(inner == part or inner.startswith(f"{part}.") for part in allowed)
        assert inner not in OF_MASKS, f"{path} imports {name}"
        assert shared, f"{path} imports {name}"


@pytest.mark.parametrize("name", PURE)
def test_the_oracle_and_the_checks_need_numpy_and_the_standard_library_only(name):
    allowed = {"flurka_numba", "splat_numba", "numpy", *sys.stdlib_module_names}
    assert {full.split(".")[0] for full in imports_of(ROOT / name)} <= allowed


def test_every_folder_with_modules_is_a_package():
    folders = {path.parent for path in MODULES}
    assert {str(folder) for folder in folders if not (ROOT / folder / "__init__.py").exists()} == set()


def test_no_module_is_taken_for_numba_cudas_own():
    names = ["flurka_numba." + ".".join(path.with_suffix("").parts) for path in MODULES]
    assert [name for name in names if "numba.cuda" in name] == []


def test_importing_the_package_loads_nothing_heavy():
    assert python(f"import sys, flurka_numba; print([name for name in {HEAVY} if name in sys.modules])") == "[]"


def test_the_oracle_works_where_numba_is_missing():
    code = """
import sys
sys.modules["numba"] = None
import numpy as np
from flurka_numba import reference
print(reference.attention(np.ones((2, 3)), np.ones((4, 3)), np.ones((4, 5)), np.ones((2, 4)) / 4).shape)
"""
    assert python(code) == "(2, 5)"
