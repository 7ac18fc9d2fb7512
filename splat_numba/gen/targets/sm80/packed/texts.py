"""The tiled texts by what they depend on, and how they are called."""

from __future__ import annotations

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import STEPS
from splat_numba.gen.targets.sm80.packed import columns, sddmm, spmm
from splat_numba.gen.targets.sm80.packed.real_spmm import render_real_spmm
from splat_numba.gen.targets.sm80.packed.traits import TiledTraits

PAGES = {
    "sddmm": (sddmm.parameter_names, sddmm.render_sddmm, sddmm.ARRAYS),
    "spmm": (spmm.parameter_names, spmm.render_spmm, spmm.ARRAYS),
    "columns": (columns.parameter_names, columns.render_columns, columns.ARRAYS),
}
"""Of each family, what its parameters are called, its text, its arrays, the last one written."""
KINDS = {"scale": "f"}


def tiled_text(traits: TiledTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after them."""
    parameters = tuple(
        (name, KINDS.get(name, "l" if number < 2 else "r"))
        for number, group in enumerate(_groups(traits)) for name in group
    )  # fmt: skip
    entry = Entry(traits.family, parameters, traits.threads, traits.resident, traits.shared_bytes, arch=arch)
    return EmittedText(
        f"packed_{traits.family}_sm80_{arch}_d{traits.dim}_{traits.dtype}_rows{traits.rows}",
        entry,
        render_tiled,
        (traits,),
    )


def render_tiled(traits: TiledTraits) -> str:
    """Python source of the kernel, for every mask of these traits. Pure and deterministic."""
    render = render_real_spmm if traits.copies_values else PAGES[traits.family][1]
    return render(traits, _groups(traits))


def _groups(traits: TiledTraits) -> tuple[tuple[str, ...], ...]:
    """Names of parameters: addresses, steps in bytes, what else there is."""
    names, _, arrays = PAGES[traits.family]
    addresses, *rest = names()
    return addresses, tuple(f"{name}_{step}" for name in arrays for step in STEPS), *rest
