"""The texts of packed operators by what they depend on, and how they are called."""

from __future__ import annotations

from splat_numba.gen.language.entry import Entry
from splat_numba.gen.schedules.schedule import EmittedText
from splat_numba.gen.targets.gpu.addresses import STEPS
from splat_numba.gen.targets.simt.packed import adding, gathering, sddmm, softmax, softmax_chunks, spmm, tiles
from splat_numba.gen.targets.simt.packed.tile_traits import FmaTraits
from splat_numba.gen.targets.simt.packed.traits import THREADS, PackedTraits

PAGES = {
    "sddmm": (sddmm.parameter_names, sddmm.render_sddmm),
    "softmax": (softmax.parameter_names, softmax.render_softmax),
    "softmax_backward": (softmax.parameter_names, softmax.render_softmax_backward),
    "spmm": (spmm.parameter_names, spmm.render_spmm),
    "adding": (adding.parameter_names, adding.render_adding),
    "gathering": (gathering.parameter_names, gathering.render_gathering),
}
"""Of each family, what its parameters are called, and its text."""
ARRAYS = {
    **softmax.ARRAYS,
    "sddmm": sddmm.ARRAYS,
    "spmm": spmm.ARRAYS,
    "adding": adding.ARRAYS,
    "gathering": gathering.ARRAYS,
}
"""Of each family, the last one written."""


def packed_text(traits: PackedTraits, arch: str) -> EmittedText:
    """The text of the kernel with these traits for an architecture, named after them."""
    shape = "_".join(
        [f"d{traits.dim}"] * bool(traits.dim)
        + [traits.dtype]
        + ["listed"] * traits.listed
        + ["placed"] * traits.placed
        + [f"held{traits.sharing}x{traits.held}"] * bool(traits.held)
        + ["partial"] * traits.partial
    )
    entry = Entry(traits.family, parameters(traits), THREADS, 1, 0, arch=arch)
    return EmittedText(f"packed_{traits.family}_simt_{arch}_{shape}", entry, render_packed, (traits,))


def render_packed(traits: PackedTraits) -> str:
    """Python source of the kernel, for every mask of these traits. Pure and deterministic."""
    if traits.held:
        return softmax_chunks.render_softmax_chunks(traits, _groups(traits))
    return PAGES[traits.family][1](traits, _groups(traits))


def fma_tiles_text(traits: FmaTraits, arch: str) -> EmittedText:
    """The text over tiles with these traits for an architecture, named after them."""
    threads, parameters = traits.share.threads, _kinds(_tile_groups(traits))
    entry = Entry(traits.family, parameters, threads, traits.resident, traits.shared_bytes, arch=arch)
    name = f"packed_{traits.family}_tiles_simt_{arch}_d{traits.dim}_{traits.dtype}"
    return EmittedText(name, entry, render_fma_tiles, (traits,))


def render_fma_tiles(traits: FmaTraits) -> str:
    """Python source of the kernel, for every mask of these traits. Pure and deterministic."""
    return tiles.render_tiles(traits, _tile_groups(traits))


def _tile_groups(traits: FmaTraits) -> tuple[tuple[str, ...], ...]:
    """As _groups."""
    addresses, *rest = tiles.parameter_names(traits)
    return addresses, tuple(f"{name}_{step}" for name in tiles.ARRAYS[traits.family] for step in STEPS), *rest


def _groups(traits: PackedTraits) -> tuple[tuple[str, ...], ...]:
    """Names of parameters: addresses, steps in bytes, what else there is."""
    addresses, *rest = PAGES[traits.family][0](traits)
    return addresses, tuple(f"{name}_{step}" for name in ARRAYS[traits.family] for step in STEPS), *rest


def parameters(traits: PackedTraits) -> tuple[tuple[str, str], ...]:
    """(name, kind) of all parameters."""
    return _kinds(_groups(traits))


def _kinds(groups: tuple[tuple[str, ...], ...]) -> tuple[tuple[str, str], ...]:
    """(name, kind) of all parameters; the scale of float64 is its bits, as no parameter is of that kind."""
    addresses, steps, *rest = groups
    kinds = {"scale": "f", "scale_bits": "l"}
    return (
        *((name, "l") for name in (*addresses, *steps)),
        *((name, kinds.get(name, "r")) for one in rest for name in one),
    )  # fmt: skip
