"""The GPU as an executor: cubins of generated kernels, launched on the caller's stream over the arrays in place.

(Not called cuda_kernel: numba-cuda's import hook takes every module whose full name contains "numba.cuda" for its own.)
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat_numba.arguments.masks import Stored, describe
from splat_numba.errors import ArgumentError, BackendError
from splat_numba.executor import Executor, Part, Recipe
from splat_numba.formats.geometry import geometry
from splat_numba.formats.patterns import Pattern
from splat_numba.gen.boxes import BoxPass, Traits
from splat_numba.gen.machine import Gpu
from splat_numba.gen.plan import Plan
from splat_numba.gen.planner import make_plan
from splat_numba.gen.problem import Problem
from splat_numba.gen.targets.sm90.attention import attention_entry, render_attention
from splat_numba.gpu_call import attend
from splat_numba.runtime.cuda.arrays import check_operand_dtype
from splat_numba.runtime.dump import dump
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

if TYPE_CHECKING:
    from splat_numba.runtime.cuda.build import Cubin


@dataclass(frozen=True, slots=True)
class CompiledPasses:
    """The machine code of a plan's passes, of which there is at least one; passes of equal traits share theirs."""

    cubins: tuple[Cubin, ...]
    traits: tuple[Traits, ...]

    @property
    def source(self) -> KernelSource:
        """The first pass's text."""
        return self.cubins[0].source

    @property
    def path(self) -> Path | None:
        """The file of the text, None if the cache folder cannot be used."""
        return self.cubins[0].path

    @property
    def cached(self) -> bool:
        """Whether all machine code came from disk."""
        return all(cubin.cached for cubin in self.cubins)


def render(traits: Traits) -> KernelSource:
    """The text of the kernel with these traits, named after shape and type."""
    name = f"attention_sm_90a_d{traits.head_dim}_{traits.dtype}_{traits.tile_q}x{traits.tile_kv}"
    return KernelSource.of(name, render_attention(traits))


@lru_cache(maxsize=256)
def cubin_for(traits: Traits, settings: Settings) -> Cubin:
    """Machine code for all passes of these traits, remembered. Raises BackendError without the compiler."""
    from splat_numba.runtime.cuda.build import build

    return build(render(traits), attention_entry(traits), settings)


@lru_cache(maxsize=256)
def plan_for(mask: Stored, problem: Problem, gpu: Gpu, *, ragged: bool, negate: bool) -> Plan:
    """The plan for one mask, remembered."""
    found = geometry(mask, problem.seq_q, problem.seq_kv)
    return make_plan(found, problem, gpu, describe(mask), ragged=ragged, negate=negate)


def gpu() -> Gpu:
    """The GPU as the planner sees it: this machine's first one, or the usual one where there is none to run on."""
    try:
        from splat_numba.runtime.cuda.device import device

        return Gpu(multiprocessors=device(0).multiprocessors)
    except BackendError:
        return Gpu()


def passes_of(plan: Plan) -> tuple[BoxPass, ...]:
    """The passes of a GPU's plan."""
    return tuple(one for one in plan.passes if isinstance(one, BoxPass))


def compiled_for(plan: Plan, settings: Settings, made: CompiledPasses | None = None) -> CompiledPasses:
    """Machine code for a plan; ``made``: what may be taken over where traits agree."""
    traits = tuple(one.traits for one in passes_of(plan))
    known = dict(zip(made.traits, made.cubins, strict=True)) if made is not None else {}
    cubins = tuple(known[one] if one in known else cubin_for(one, settings) for one in traits)
    for cubin in cubins:
        dump(cubin.source, plan.as_dict(), settings)
    return CompiledPasses(cubins, traits)


@lru_cache(maxsize=256)
def _planned(
    mask: Stored, problem: Problem, gpu: Gpu, settings: Settings, *, ragged: bool, negate: bool
) -> tuple[Plan, CompiledPasses]:
    plan = plan_for(mask, problem, gpu, ragged=ragged, negate=negate)
    return plan, compiled_for(plan, settings)


class CudaExecutor:
    """Plans hold tables, so every length has its own; kernels are shared by all masks of equal traits."""

    name = "cuda"

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered. Raises ArgumentTypeError for dtypes that a GPU does not multiply."""
        check_operand_dtype("dtype", problem.dtype)
        return plan_for(mask, problem, gpu(), ragged=False, negate=scale < 0)

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and machine code for one mask, remembered."""
        check_operand_dtype("dtype", problem.dtype)
        return Part(mask, heads, *_planned(mask, problem, gpu(), settings, ragged=ragged, negate=scale < 0))

    def serves_every_length(self, part: Part) -> bool:
        """Whether the mask does: plans are made anew."""
        return isinstance(part.mask, Pattern)

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part planned anew for other lengths or for key lengths; a text that still fits is run as it is."""
        made = part.plan.problem
        same = (made.seq_q, made.seq_kv) == (problem.seq_q, problem.seq_kv)
        if same and ragged == any(one.traits.ragged for one in passes_of(part.plan)):
            return part
        plan = self._plan_for(part.mask, part.heads, problem, settings, ragged=ragged, negate=scale < 0)
        return replace(part, plan=plan, compiled=compiled_for(plan, settings, part.compiled))

    def _plan_for(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, settings: Settings,
        *, ragged: bool, negate: bool,
    ) -> Plan:  # fmt: skip
        return plan_for(mask, problem, gpu(), ragged=ragged, negate=negate)

    def with_source(self, part: Part, source: KernelSource, settings: Settings) -> Part:
        """The part run from another text. Raises ArgumentError for several texts, CompileError."""
        kinds = set(part.compiled.traits)
        if len(kinds) != 1:
            raise ArgumentError(f"kernel wanted with one text, got {len(kinds)}. Choose a mask of one pass.")
        (traits,) = kinds
        from splat_numba.runtime.cuda.build import build

        entry = attention_entry(traits)
        source.check_defines(entry.name)
        cubin = build(source, entry, settings)
        return replace(part, compiled=replace(part.compiled, cubins=(cubin,) * len(part.compiled.cubins)))

    def resources(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Registers, spills, shared memory, the assembler's warnings and log, and what came from the disk cache."""
        reports = list({id(cubin): cubin.report for part in parts for cubin in part.compiled.cubins}.values())
        return {
            "registers": max((report.registers for report in reports), default=0),
            "spill_bytes": sum(report.spill_bytes for report in reports),
            "shared_bytes": max((report.shared_bytes for report in reports), default=0),
            "warnings": tuple(warning for report in reports for warning in report.warnings),
            "log": "\n".join(report.log for report in reports),
            "cached": [part.compiled.cached for part in parts],
        }

    def listing(self, part: Part, form: str) -> Any:
        """The machine code of the first pass, or its text. Raises BackendError where the disassembler is missing."""
        cubin = part.compiled.cubins[0]
        if form == "cubin":
            return cubin.code
        if form == "ptx":
            from splat_numba.runtime.cuda.build import ptx

            return ptx(cubin.source, cubin.entry)
        return disassemble(cubin.code)

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """Run on the GPU that q is on, in the order of its framework's current stream."""
        return attend(recipe, q, k, v, kv_lengths, out, return_lse)


CUDA: Executor = CudaExecutor()


def disassemble(cubin: bytes) -> str:
    """The assembly of machine code. Raises BackendError without NVIDIA's disassembler."""
    for tool, options in (("nvdisasm", ("-c",)), ("cuobjdump", ("-sass",))):
        if found := shutil.which(tool) or _packaged(tool):
            with tempfile.TemporaryDirectory(prefix="splat-") as folder:
                path = Path(folder, "kernel.cubin")
                path.write_bytes(cubin)
                done = subprocess.run(  # noqa: S603 - the tool is the user's own, its input ours
                    [found, *options, str(path)], capture_output=True, text=True, check=False
                )
            if done.returncode == 0:
                return done.stdout
            raise BackendError(f"{found} wanted to read the cubin, got: {done.stderr.strip()}. Update it.")
    raise BackendError(
        "sass wanted nvdisasm or cuobjdump, got neither. "
        "Install the CUDA toolkit and put it on PATH, or run: python -m pip install nvidia-cuda-nvdisasm"
    )


def _packaged(tool: str) -> str | None:
    """A tool that came as a Python package."""
    try:
        from cuda.pathfinder import find_nvidia_binary_utility
    except ImportError:
        return None
    found: str | None = find_nvidia_binary_utility(tool)
    return found
