"""Powers of two that bring numbers into a range, so that multiplying by them and by their inverses is exact.

A power's bits are those of a bfloat16, which has float32's exponent: no instruction takes an exponent by itself.
"""

from __future__ import annotations

from splat_numba.gen.language.writer import SourceWriter

# A bfloat16 has float32's exponent in bits 7 to 14.
_EXPONENT = 0x7F80
_LARGEST = 0x7E00  # of exponents that have an inverse
_HALF = 0x7E80  # the exponents of x and of the power of two that makes it at least 1/2 add up to this
BOTH = 0x7F00  # of a number and its inverse


def emit_scale(out: SourceWriter, name: str, largest: str, power: int = 0) -> None:
    """``name``: the power of two that brings ``largest``, a name of a number >= 0, between 2^(power - 1) and 2^power.
    ``name``_bits: it as bfloat16. It is at least 2^-126 and at most 2^126, as far as its inverse is a normal number: 0
    gives the largest.
    """
    last = _LARGEST + 128 * min(power, 0)
    out.lines(
        f"""
        {name}_bits = u32(ptx.pack_bfloat16({largest}, f32(0.0)) & u32({_EXPONENT}))
        {name}_bits = u32({_HALF + 128 * power}) - ({name}_bits if {name}_bits < u32({last}) else u32({last}))
        """
    )
    if power > 0:
        out.line(f"{name}_bits = {name}_bits if {name}_bits < u32({_HALF}) else u32({_HALF})")
    emit_power(out, name)


def emit_power(out: SourceWriter, name: str) -> None:
    """``name``: the number whose bits ``name``_bits are."""
    out.line(f"{name}, unused = ptx.unpack_bfloat16({name}_bits)")


def emit_inverse(out: SourceWriter, name: str, scale: str) -> None:
    """``name``: 1 / scale, exactly, of a ``scale`` that emit_scale() made."""
    out.line(f"{name}, unused = ptx.unpack_bfloat16(u32({BOTH}) - {scale}_bits)")
