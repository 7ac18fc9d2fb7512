"""Small faults planted in the package, one at a time: `python -m tests.mutants` lists those that no test has seen.

For each file of TRIED some mutants are drawn from all that there are: a comparison turned or moved by one, a sum turned
into a difference, a number one larger, a condition negated, a statement left out; and in texts that become kernels the
same of what looks like code. Each is tried in a copy of the repository, with the tests that fit the file, which must
pass without it. A mutant is killed if they fail, or do not end in time; those of which that is all that is known are
listed too, since a machine with other work does not end in time either.

Before a release: run it with --each 40, and look at every survivor. It is a hole in the tests, and gets a test; or the
program does the same with it, and is noted in tests/mutants_survived.md with the reason.
"""

import argparse
import ast
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from copy import deepcopy
from pathlib import Path

ROOT = Path(__file__).parent.parent
EVERY_KIND = "tests/ops/test_every_kind.py::test_every_kind_has_a_problem"
PASSES = (EVERY_KIND, "tests/gen/test_passes.py", "tests/gen/test_plan.py")
CLOSED = (
    EVERY_KIND,
    "tests/gen/test_passes.py::test_every_pair_of_awkward_lengths",
    "tests/gen/test_passes.py::test_a_closed_plan_is_right_at_lengths_it_was_not_made_for",
    "tests/gen/test_plan.py::test_lengths_near_each_other_share_their_tiles",
    "tests/gen/test_plan.py::test_the_tiles_tried_are_those_whose_scores_fit_half_a_cache",
    "tests/gen/test_plan.py::TestExplain",
)
TABLES = (
    EVERY_KIND,
    "tests/gen/test_passes.py::test_some_plan_regroups_resumes_and_gathers",
    "tests/gen/test_passes.py::test_tables_regrouped_by_residue",
    "tests/gen/test_plan.py::test_rows_are_regrouped_for_four_steps_at_most_and_where_rows_have_four_keys",
    "tests/gen/test_plan.py::TestExplain",
    "tests/gen/test_passes.py::test_any_pattern_by_tables",
)
FAULTS = tuple(f"tests/emulator/test_{one}.py" for one in ("fences", "exchange", "faults", "meanings"))
COMPUTED = (*FAULTS, "tests/emulator/test_fidelity.py")
KINDS = ("tests/ops/test_every_kind.py",)
BOXES = ("tests/gen/test_box_passes.py",)
BITS = tuple(
    f"tests/gen/test_box_passes.py::test_{one}"
    for one in ("masks_are_deduplicated_in_parts_too", "masks_of_one_hash_are_all_kept", "random_masks", "any_mask")
)
TRIED = {
    "splat_numba/gen/rows/closed.py": CLOSED,
    "splat_numba/gen/rows/tables.py": TABLES,
    "splat_numba/gen/rows/cover.py": PASSES,
    "splat_numba/gen/packed/groups.py": ("tests/gen/test_packed_groups.py",),
    **dict.fromkeys(
        ("splat_numba/gen/targets/cpu/packed_sddmm.py", "splat_numba/gen/targets/cpu/packed_spmm.py"),
        ("tests/gen/test_emulated.py::test_packed_operators", "tests/gen/test_packed_groups.py"),
    ),
    "splat_numba/gen/boxes/order.py": BOXES,
    "splat_numba/gen/boxes/cover.py": BOXES,
    "splat_numba/gen/boxes/bits.py": BITS,
    "splat_numba/gen/targets/cpu/blocks.py": ("tests/gen/test_emulated.py", *KINDS),
    **dict.fromkeys(
        ("splat_numba/gen/targets/sm90/producer.py", "splat_numba/gen/targets/sm90/loads.py"),
        ("tests/emulator/test_planted_faults.py::test_the_text_as_it_is_passes", "tests/emulator/test_every_kind.py"),
    ),
    "splat_numba/gen/targets/cpu/schedule.py": (
        *KINDS,
        "tests/ops/test_kernel.py::test_an_edited_text_runs_through_the_same_launcher",
    ),
    "splat_numba/runtime/threads.py": ("tests/runtime/test_threads.py",),
    "splat_numba/emulator/fences.py": FAULTS,
    "splat_numba/emulator/exchange.py": FAULTS,
    "splat_numba/emulator/block.py": FAULTS,
    "splat_numba/emulator/copies.py": COMPUTED,
    "splat_numba/emulator/products.py": COMPUTED,
    "splat_numba/emulator/text.py": COMPUTED,
    "splat_numba/emulator/vectorise.py": COMPUTED,
}
TURNED = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.FloorDiv: ast.Mult, ast.Or: ast.And, ast.And: ast.Or,
}  # fmt: skip
TEXTS = [(" < ", " <= "), (" <= ", " < "), (" >= ", " > "), (" == ", " != "), (" + ", " - "), (" - ", " + "),
         ("min(", "max("), ("max(", "min(")]  # fmt: skip
CODE = re.compile(r" (=|<|\+=|-=|>=) |^ptx\.|^if |^while |^for ")


def changes(node, in_text):
    """Yield (what, function that changes a copy of the node in place)."""
    if isinstance(node, ast.Compare | ast.BinOp | ast.BoolOp):
        kind = type(node.ops[0] if isinstance(node, ast.Compare) else node.op)
        if kind in TURNED:
            yield f"{kind.__name__} to {TURNED[kind].__name__}", lambda one: _turn(one, TURNED[kind])
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        yield "condition negated", lambda one: setattr(one, "test", ast.UnaryOp(ast.Not(), one.test))
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value} to {node.value + 1}", lambda one: setattr(one, "value", one.value + 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str) and (in_text or CODE.search(node.value)):
        for old, new in TEXTS:
            if old in node.value:
                yield f"text {old.strip()} to {new.strip()}", lambda one, a=old, b=new: _replace(one, a, b)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
        yield "statement left out", lambda one: setattr(one, "value", ast.Constant(None))
    elif isinstance(node, ast.AugAssign):
        yield "statement left out", lambda one: setattr(one, "value", ast.Constant(0))


def _turn(node, kind):
    if isinstance(node, ast.Compare):
        node.ops[0] = kind()
    else:
        node.op = kind()


def _replace(node, old, new):
    node.value = node.value.replace(old, new, 1)


def mutants(text):
    """(line, what, the text with this change) of all there are; annotations and docstrings stay."""
    tree = ast.parse(text)
    nodes = list(ast.walk(tree))
    left_alone = {id(inner) for node in nodes for part in _left_alone(node) for inner in ast.walk(part)}
    in_text = {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    for number, node in enumerate(nodes):
        if id(node) in left_alone:
            continue
        for what, change in changes(node, id(node) in in_text):
            changed = deepcopy(tree)
            change(list(ast.walk(changed))[number])
            yield node.lineno, what, ast.unparse(ast.fix_missing_locations(changed))


def _left_alone(node):
    """Parts whose changes nobody can see: annotations, docstrings, messages of errors."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
        yield node.body[0]
    for name in ("annotation", "returns"):
        if getattr(node, name, None) is not None:
            yield getattr(node, name)
    if isinstance(node, ast.Raise):
        yield node


def outcome(folder, tests, seconds):
    """Of the tests: passed, failed or late."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    environment = {**os.environ, "PYTHONPATH": str(folder), "HYPOTHESIS_PROFILE": "mutants"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=seconds, check=False)
    except subprocess.TimeoutExpired:
        return "late"
    return "failed" if done.returncode else "passed"


def run(files, each, seed, minutes):
    """Print what was tried, and each survivor."""
    ends = time.monotonic() + 60 * minutes
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "repository"
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(".git", "__pycache__", ".*_cache", "shared"))
        for path in files:
            if time.monotonic() >= ends:
                break
            text, tests, begin = (ROOT / path).read_text(), TRIED[path], time.monotonic()
            if outcome(folder, tests, 600) != "passed":
                raise SystemExit(f"{path}: its tests wanted to pass without a mutant, got failures.")
            limit = 20 + 4 * (time.monotonic() - begin)
            found = list(mutants(text))
            drawn = random.Random(f"{seed} {path}").sample(found, min(each, len(found)))  # noqa: S311 - no secret
            lines = {"passed": [], "failed": [], "late": []}
            for line, what, changed in sorted(drawn):
                if time.monotonic() >= ends:
                    break
                (folder / path).write_text(changed)
                lines[outcome(folder, tests, limit)].append(
                    f"- line {line}, {what}: `{text.splitlines()[line - 1].strip()}`"
                )
            (folder / path).write_text(text)
            report(path, lines, len(found))


def report(path, lines, of):
    """Print what became of a file's mutants. lines: of each, by outcome; of: how many there are."""
    tried, survived, late = sum(map(len, lines.values())), lines["passed"], lines["late"]
    head = f"\n`{path}`: {tried} of {of} tried, {len(survived)} survived, {len(late)} did not end in time\n"
    sys.stdout.write("\n".join([head, *survived, *(f"{one} (not in time)" for one in late), ""]))
    sys.stdout.flush()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", help="of TRIED (default: all)")
    parser.add_argument("--each", type=int, default=10, metavar="N", help="mutants of a file (default: 10)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draw (default: 0)")
    parser.add_argument("--minutes", type=float, default=60.0, metavar="N", help="at most (default: 60)")
    given = parser.parse_args()
    if unknown := set(given.files) - set(TRIED):
        parser.error(f"files wanted from TRIED, got {', '.join(sorted(unknown))}")
    run(given.files or list(TRIED), given.each, given.seed, given.minutes)


if __name__ == "__main__":
    main()
