"""The GPU as an executor: cubins of generated kernels, launched on the caller's stream over the arrays in place.

(Not called cuda_kernel: numba-cuda's import hook takes every module whose full name contains "numba.cuda" for its own.)
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from splat_numba.arguments.masks import Stored
from splat_numba.errors import BackendError
from splat_numba.executors.executor import Again, BackwardCall, Executor, Part, Recipe
from splat_numba.executors.gpu.call import attend, attend_again
from splat_numba.executors.gpu.parts import OfGpuTexts, backward_texts, texts_of
from splat_numba.executors.plans import plan_for
from splat_numba.gen.language.dtypes import IEEE
from splat_numba.gen.plans.machine import Gpu
from splat_numba.gen.plans.plan import Plan
from splat_numba.gen.plans.problem import Conditions, Problem
from splat_numba.gen.schedules.schedule import Text
from splat_numba.runtime.cuda.code import cubin_for, edited_text
from splat_numba.runtime.dump import dump
from splat_numba.runtime.recent import REMEMBERED
from splat_numba.runtime.source import KernelSource
from splat_numba.settings import Settings

if TYPE_CHECKING:
    from splat_numba.runtime.cuda.build import Cubin


@dataclass(frozen=True, slots=True)
class CompiledPasses:
    """The machine code of a plan's passes, of which there is at least one; passes of equal traits share theirs.

    texts: what it was compiled from, the caller's perhaps, in place of the ones that the plan has (planned).
    """

    planned: tuple[Text, ...]
    texts: tuple[Text, ...]
    cubins: tuple[Cubin, ...]

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


def gpu() -> Gpu:
    """The GPU as the planner sees it: this machine's first one, or the usual one where there is none to run on."""
    try:
        from splat_numba.runtime.cuda.device import device

        return device(0).as_planned
    except BackendError:
        return Gpu()


def compiled_for(plan: Plan, settings: Settings, made: CompiledPasses | None = None) -> CompiledPasses:
    """Machine code for a plan; ``made``: whose texts and code take the place of the same ones of the plan."""
    planned = texts_of(plan)
    known = {} if made is None else dict(zip(made.planned, zip(made.texts, made.cubins, strict=True), strict=True))
    found = [known.get(one) or (one, cubin_for(one, settings)) for one in planned]
    texts, cubins = tuple(text for text, _ in found), tuple(cubin for _, cubin in found)
    for cubin in cubins:
        dump(cubin.source, plan.as_dict(), settings)
    return CompiledPasses(planned, texts, cubins)


@lru_cache(maxsize=REMEMBERED)
def _planned(
    mask: Stored, problem: Problem, gpu: Gpu, settings: Settings, request: str | None, conditions: Conditions
) -> tuple[Plan, CompiledPasses]:
    plan = plan_for(mask, problem, gpu, request, conditions)
    return plan, compiled_for(plan, settings)


@dataclass(frozen=True, slots=True)
class CudaExecutor(OfGpuTexts):
    """Plans hold tables, so every length has its own; kernels are shared by all masks of equal traits.

    target: the one asked for, None for any; precision: of products of float32.
    """

    target: str | None = None
    precision: str = IEEE
    name: ClassVar[str] = "cuda"
    transformable: ClassVar[bool] = True
    emulated: ClassVar[bool] = False

    def planned_gpu(self) -> Gpu:
        """This machine's first one, or the usual one."""
        return gpu()

    def plan(self, mask: Stored, problem: Problem, scale: float, settings: Settings) -> Plan:
        """The plan for one mask, remembered. Raises ArgumentTypeError for dtypes that no target takes."""
        return plan_for(mask, self.precise(problem), gpu(), self.target, Conditions(negate=scale < 0))

    def measured(self) -> Executor:
        """The one whose plans are timed on this GPU."""
        found = _measured(self.target)
        return found if self.precision == IEEE else found.with_precision(self.precision)

    def check_present(self) -> None:
        """Raise BackendError without a GPU, or with one that no target runs on."""
        from splat_numba.runtime.cuda.device import device

        device(0)

    def part(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, scale: float, settings: Settings,
        *, ragged: bool = False,
    ) -> Part:  # fmt: skip
        """Plan and machine code for one mask, remembered."""
        conditions = Conditions(ragged, scale < 0)
        return Part(mask, heads, *_planned(mask, self.precise(problem), gpu(), settings, self.target, conditions))

    def adapt(self, part: Part, problem: Problem, scale: float, settings: Settings, *, ragged: bool) -> Part:
        """The part planned anew for other lengths or for key lengths; a text that still fits is run as it is."""
        made = part.plan.problem
        same = (made.seq_q, made.seq_kv) == (problem.seq_q, problem.seq_kv)
        if same and ragged == part.plan.conditions.ragged:
            return part
        plan = self._plan_for(part.mask, part.heads, problem, settings, Conditions(ragged, scale < 0))
        return replace(part, plan=plan, compiled=compiled_for(plan, settings, part.compiled))

    def _plan_for(
        self, mask: Stored, heads: tuple[int, ...] | None, problem: Problem, settings: Settings, conditions: Conditions
    ) -> Plan:
        return plan_for(mask, self.precise(problem), gpu(), self.target, conditions)

    def with_source(self, part: Part, source: KernelSource, settings: Settings) -> Part:
        """The part run from another text. Raises ArgumentError for several texts, CompileError."""
        text = edited_text(part.compiled.planned, source)
        count = len(part.compiled.planned)
        made = replace(part.compiled, texts=(text,) * count, cubins=(cubin_for(text, settings),) * count)
        return replace(part, compiled=made)

    def resources(self, parts: tuple[Part, ...]) -> dict[str, Any]:
        """Registers, spills, shared memory, the assembler's warnings and log, what came from the disk
        cache, and the compiler with its version.
        """
        from splat_numba.runtime.cuda.compilers.compiler import described

        cubins = list({id(cubin): cubin for part in parts for cubin in part.compiled.cubins}.values())
        reports = [cubin.report for cubin in cubins]
        return {
            "registers": max((report.registers for report in reports), default=0),
            "spill_bytes": sum(report.spill_bytes for report in reports),
            "shared_bytes": max((report.shared_bytes for report in reports), default=0),
            "warnings": tuple(warning for report in reports for warning in report.warnings),
            "log": "\n".join(report.log for report in reports),
            "cached": [part.compiled.cached for part in parts],
            "compiler": described(cubins[0].compiler) if cubins else "",
        }

    def listing(self, part: Part, form: str) -> Any:
        """The machine code of the first pass, or its text. Raises BackendError where the disassembler is missing."""
        cubin = part.compiled.cubins[0]
        if form == "cubin":
            return cubin.code
        if form == "ptx":
            from splat_numba.runtime.cuda.build import ptx

            return ptx(cubin.source, cubin.entry, cubin.compiler)
        return disassemble(cubin.code)

    def attend(self, recipe: Recipe, q: Any, k: Any, v: Any, kv_lengths: Any, out: Any, return_lse: bool) -> Any:
        """Run on the GPU that q is on, in the order of its framework's current stream."""
        return attend(recipe, q, k, v, kv_lengths, out, return_lse)

    def compile_backward(self, recipe: Recipe, problem: Problem, scale: float, settings: Settings) -> None:
        """Compile them, or read them from disk."""
        for one in backward_texts(recipe, problem, scale, gpu()):
            cubin_for(one, settings)

    def backward(self, recipe: Recipe, call: BackwardCall) -> tuple[Any, Any, Any]:
        """The gradients, in the order of the current stream of q's framework."""
        found: tuple[Any, Any, Any] = _backward().backward(recipe, call)
        return found

    def attend_again(self, recipe: Recipe, arrays: tuple[Any, ...], return_lse: bool) -> Again | None:
        """As attend(), for arrays of a framework that tells them apart fast."""
        return attend_again(recipe, arrays, return_lse)

    def backward_again(self, recipe: Recipe, call: BackwardCall) -> Again | None:
        """Likewise."""
        found: Again | None = _backward().backward_again(recipe, call)
        return found


@cache
def _measured(target: str | None) -> Executor:
    """Imported when first wanted: an import statement takes a microsecond at every call."""
    from splat_numba.executors.gpu.tuning import TunedExecutor

    return TunedExecutor(target)


@cache
def _backward() -> Any:
    """Likewise the module: planners of gradients are 60 ms that forward has no use for."""
    from splat_numba.executors.gpu import backward

    return backward


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
