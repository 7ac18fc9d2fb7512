"""The emulator against what a Hopper GPU answered, and a case for every instruction."""

import ast

import pytest

from splat_numba.gen.language.instructions import FAMILIES, INSTRUCTIONS
from tests.emulator.fidelity import emulate
from tests.emulator.fidelity_cases import CASES, recorded

# Strict: a recorded answer makes the mark fall. The GPU's own test (tests/gpu/test_fidelity.py) needs no record.
UNRECORDED: dict[str, str] = {}  # by name: why no GPU has answered yet


def by_record(case):
    """The case, marked where no GPU's answer is kept."""
    reason = UNRECORDED.get(case.name)
    marks = [] if reason is None else [pytest.mark.xfail(strict=True, raises=LookupError, reason=reason)]
    return pytest.param(case, id=case.name, marks=marks)


by_name = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def called(case):
    """What the case's text takes from ptx."""
    nodes = ast.walk(ast.parse(case.text))
    return {node.attr for node in nodes if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "ptx"}


def test_every_instruction_has_a_case():
    proved = {name for case in CASES for name in case.proves}
    assert proved == {one.name for one in INSTRUCTIONS} | set(FAMILIES)
    assert len({case.name for case in CASES}) == len(CASES)


@by_name
def test_a_case_calls_what_it_proves(case):
    assert set(case.proves) <= called(case)


@pytest.mark.parametrize("case", [by_record(case) for case in CASES])
@pytest.mark.parametrize("late", [False, True], ids=["copies at once", "copies late"])
def test_the_emulator_answers_as_the_hardware_did(case, late):
    case.agree(case, emulate(case, late=late), recorded(case))
