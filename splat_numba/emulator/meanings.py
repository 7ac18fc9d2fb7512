"""What every instruction of gen.language.instructions does here: its own meaning, or a method of what has state."""

from __future__ import annotations

from collections.abc import Iterable
from inspect import signature
from types import SimpleNamespace

from splat_numba.emulator.accesses import Accesses
from splat_numba.emulator.barriers import Barriers, Places
from splat_numba.emulator.block import Block
from splat_numba.emulator.copies import Copies
from splat_numba.emulator.products import Products
from splat_numba.gen.language.instructions import FAMILIES, INSTRUCTIONS, Instruction

KINDS = (Places, Barriers, Copies, Products, Accesses)
"""Their public methods are instructions by name."""


def meanings(block: Block) -> SimpleNamespace:
    """The instructions as functions, for the warps of one block: what a text calls ``ptx``."""
    values = {one.name: one.meaning for one in INSTRUCTIONS if one.meaning is not None}
    parts = [(kind(block), kind) for kind in KINDS]
    return SimpleNamespace(**values, **{name: getattr(part, name) for part, kind in parts for name in _names(kind)})


def _names(kind: type) -> list[str]:
    return [name for name in vars(kind) if not name.startswith("_")]


def check_complete(instructions: Iterable[Instruction]) -> None:
    """Raise NotImplementedError unless each instruction has one meaning, of as many operands as its assembly."""
    given = [(one.name, one.meaning, 0) for one in instructions if one.meaning is not None]
    given += [(name, vars(kind)[name], 1) for kind in KINDS for name in _names(kind)]  # 1: self
    operands: dict[str, list[int]] = {name: [] for name in FAMILIES}
    operands |= {one.name: [len(one.operands)] for one in instructions}
    for name, wanted in operands.items():
        found = [len(signature(meaning).parameters) - own for other, meaning, own in given if other == name]
        if len(found) != 1 or (wanted and found != wanted):
            raise NotImplementedError(f"instruction {name} wanted with one meaning of {wanted} operands, got {found}")
    if unknown := {name for name, _, _ in given} - set(operands):
        raise NotImplementedError(f"meanings wanted of instructions only, got {sorted(unknown)}")


check_complete(INSTRUCTIONS)
