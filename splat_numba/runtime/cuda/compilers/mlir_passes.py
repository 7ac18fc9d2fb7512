"""The way of numba-cuda-mlir 0.6 from a function to LTO-IR, without what its public function does besides: that asks a
driver which GPU is here, drops the "a" of sm_90a and links a cubin. All that leans on its private parts stands here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from numba_cuda_mlir import mlir_compiler, tools, types
from numba_cuda_mlir import mlir_optimization as optimization
from numba_cuda_mlir._mlir import ir
from numba_cuda_mlir._mlir.passmanager import PassManager
from numba_cuda_mlir.decorators import verify_target_options
from numba_cuda_mlir.descriptor import mlir_target
from numba_cuda_mlir.extending import refresh_registries
from numba_cuda_mlir.lowering_utilities import context
from numba_cuda_mlir.numba_cuda.core.compiler_lock import global_compiler_lock
from numba_cuda_mlir.numba_cuda.cudadrv.nvvm import LibDevice

from splat_numba.gen.language.entry import Entry
from splat_numba.runtime.cuda.compilers import mlir_scalars

_KINDS = {"r": types.uint32, "l": types.uint64, "f": types.float32}
_SHARED = "__dynamic_shmem__"
_KERNEL = ("nvvm.kernel", "gpu.kernel")
_ARRAY = "llvm.alloca"
# Variables become values before anything else: MLIR puts the equal ends of two branches together, one of two variables
# to be chosen there by its address, which NVVM keeps in memory (sm80's spmm had a stack of 16 bytes).
_VALUES = "builtin.module(gpu.module(any(mem2reg)))"


def compiled(function: Callable[..., Any], entry: Entry, *, lto: bool) -> bytes:
    """The function as LTO-IR, or else as PTX, for the entry's architecture."""
    bounds = (entry.threads, entry.blocks)
    options = verify_target_options({"chip": entry.arch, "launch_bounds": bounds, "lto": lto, "debug": False})
    signature = tuple(_KINDS[kind] for kind in entry.kinds)
    with global_compiler_lock, _gpu_named(entry.capability[:2]):
        mlir_target.ensure_initialized()
        refresh_registries(include_uninitialized_cuda=False)  # intrinsics made by this text
        mlir_scalars.install()
        made = mlir_compiler.compile_mlir(function, types.none, signature, options)
        with context.get_context():
            module = made.metadata["mlir_module"]
            PassManager.parse(_VALUES).run(module.operation)
            PassManager.parse(optimization.get_base_pipeline()).run(module.operation)
            optimization.run_pre_codegen_patterns(module)
            _share_dynamically(module)
            _hoist_arrays(module)
            return _translated(module, options, entry.arch.removeprefix("sm_"), lto=lto)


@contextmanager
def _gpu_named(capability: tuple[int, ...]) -> Iterator[None]:
    """Within, it takes this for the GPU that is here, and asks no driver."""
    tools._cached_cc, before = capability, tools._cached_cc  # noqa: SLF001
    try:
        yield
    finally:
        tools._cached_cc = before  # noqa: SLF001


def _share_dynamically(module: Any) -> None:
    """Make the array of dynamic shared memory external, as CUDA wants it: an internal one of no length becomes a static
    byte, and a block that asks for all of the shared memory then has one too many.
    """
    for one in optimization._get_single_gpu_module(module).bodyRegion.blocks[0]:  # noqa: SLF001
        if one.operation.name == "llvm.mlir.global" and _SHARED in str(one.attributes["sym_name"]):
            one.attributes["linkage"] = ir.Attribute.parse("#llvm.linkage<external>")


def _hoist_arrays(module: Any) -> None:
    """Move every array and variable to the start of the kernel, where device functions left it on being inlined: NVVM
    makes registers only of those at a function's start, so accumulators would go through memory and ptxas would
    serialise the matrix products (C7514). Nothing calls the device functions any more: they are dropped.
    """
    for function in list(optimization._get_single_gpu_module(module).bodyRegion.blocks[0]):  # noqa: SLF001
        operation = function.operation
        if operation.name != "llvm.func" or not operation.regions[0].blocks:
            continue
        if not any(name in operation.attributes for name in _KERNEL):
            operation.erase()
            continue
        start, *others = operation.regions[0].blocks
        first = list(start.operations)[0].operation  # noqa: RUF015 - these lists are no iterators
        for array in [one.operation for block in others for one in block.operations if one.operation.name == _ARRAY]:
            with ir.InsertionPoint(first):
                array.operands[0] = array.operands[0].owner.clone().results[0]  # its length, a constant
            array.move_before(first)


def _translated(module: Any, options: dict[str, Any], architecture: str, *, lto: bool) -> bytes:
    if optimization._needs_llvm70_path(architecture):  # noqa: SLF001 - the GPUs before Blackwell
        return bytes(optimization._call_llvm70_capi(module, options, gen_lto=lto))  # noqa: SLF001
    text = optimization._prepare_llvm_ir(module)  # noqa: SLF001
    make = optimization._compile_to_ltoir if lto else optimization._compile_to_ptx  # noqa: SLF001
    target = optimization._nvvm_options(architecture, options)  # noqa: SLF001
    return bytes(make(text, *((LibDevice(), target) if lto else (architecture, LibDevice(), target))))
