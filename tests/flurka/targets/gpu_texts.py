"""The texts of flurka_numba's GPU stages, each kind with its variants, and what a reader and a compiler make of them.

``python -m tests.flurka.targets.gpu_texts`` prints the longest function and the deepest line of every text;
``--build`` compiles and links those that ``PART`` of its arguments names, for sm_90a, without a GPU.
"""

import argparse
import re
import sys

from flurka_numba.gpu.gradient_plan import gradient_plan, over_slots, projection_stage, token_stage
from flurka_numba.gpu.plan import forward_plan
from flurka_numba.gpu.stages import restore_stage
from splat_numba.gen.plans.machine import Gpu
from tests.flurka.gpu.composed.test_plan import texts as composed_texts
from tests.flurka.targets.sm80.test_build import TEXTS as WARP_PRODUCTS
from tests.flurka.targets.sm90.test_build import PROBLEMS, problem
from tests.gen.shape_of_text import shape_of_text

MULTIPROCESSORS = Gpu().multiprocessors
GRADIENTS = {
    "usual": {},
    "one pass, narrower": {"head_dim": 40, "value_dim": 44},
    "two passes, ragged": {"head_dim": 80, "value_dim": 44, "ragged": True, "batch": 2},
    "wide": {"head_dim": 128, "value_dim": 128},
    "float16": {"dtype": "float16"},
    "softplus": {"dtype": "float16", "phi": "softplus"},
    "corners": {"phi": "corners", "head_dim": 33, "value_dim": 36},
}
OF_FLURKA = {
    "usual": {},
    "float16": {"dtype": "float16"},
    "float16, wide, shared": {"dtype": "float16", "head_dim": 80, "value_dim": 48, "shared_proj": True, "rank": 128},
    "many slots, of each head": {"rank": 576, "per_head_proj": True, "heads": 4},
}


def stages():
    """(name of the variant, stage) of all texts for tensor cores."""
    for name, one in PROBLEMS.items():
        yield from ((name, stage) for stage in forward_plan(one, MULTIPROCESSORS).stages)
    for name, changes in GRADIENTS.items():
        plan = gradient_plan(problem("kernel", **changes), MULTIPROCESSORS)
        yield from ((f"gradients, {name}", stage) for stage in plan.stages)
    for name, changes in OF_FLURKA.items():
        outer = problem(**changes)
        of_slots = gradient_plan(over_slots(outer), MULTIPROCESSORS, outer).stages
        further = [stage(outer, frozenset("kv"), MULTIPROCESSORS) for stage in (projection_stage, token_stage)]
        yield from ((f"gradients of flurka, {name}", stage) for stage in of_slots)
        yield from ((f"gradients of flurka, {name}", found[0]) for found in further if found)
    low = problem("low_rank", dtype="float16")
    yield from (
        ("low rank, float16", stage) for stage in (*forward_plan(low, MULTIPROCESSORS).stages, restore_stage(low))
    )


def texts():
    """Those of Hopper's stages and of products over matrices, each once, by what they are and of which variant."""
    every = [(f"{stage.text.entry.name} ({name})", stage.text) for name, stage in stages()]
    every += [(f"{text.name} ({text})", text) for text in (*composed_texts(), *WARP_PRODUCTS.values())]
    first = {}
    for name, text in every:
        first.setdefault(text, name)
    return {name: text for text, name in first.items()}


def main():
    """The table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--build", metavar="PART", nargs="+", help="compile texts whose names have this in them")
    parts = parser.parse_args().build
    for name, text in texts().items():
        source = text.render()
        shapes = shape_of_text(source)
        longest, deepest = max(one.lines for one in shapes), max(one.depth for one in shapes)
        line = f"{longest:4} lines  {deepest} levels  {len(shapes):2} functions  {name}"
        if parts and any(part in name for part in parts):
            line += "  " + of_machine_code(text, source)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()


def of_machine_code(text, source):
    """Registers, bytes spilled, shared memory, and instructions of some kinds."""
    from splat_numba.executors.gpu.executor import disassemble
    from splat_numba.runtime.cuda.build import build
    from splat_numba.runtime.source import KernelSource
    from splat_numba.settings import current

    made = build(KernelSource.of(text.name, source), text.entry, current())
    found = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z]\w+)", disassemble(made.code), re.MULTILINE)
    kinds = ", ".join(f"{found.count(one)} {one}" for one in ("HGMMA", "LDG", "STG", "LDL", "BRA"))
    report = made.report
    return (
        f"{report.registers} registers, {report.spill_bytes} spilled, {report.shared_bytes} shared, "
        f"{len(report.warnings)} warnings, {len(found)} instructions, {kinds}"
    )


if __name__ == "__main__":
    main()
