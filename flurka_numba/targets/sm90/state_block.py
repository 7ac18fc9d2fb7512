"""Which part of which head's state a block makes: the stages that make states share it."""

from __future__ import annotations

from splat_numba.gen.writer import SourceWriter


def emit_state_block(out: SourceWriter, blocks: tuple[int, int]) -> None:
    """``pair`` (batch entry and head), ``feature_block`` and ``value_block`` of the number ``state``.

    blocks: of features and of values that make up a head's state.
    """
    of_features, of_values = blocks
    out.lines(
        f"""
        pair = u32(state // u32({of_features * of_values}))
        rest = u32(state - pair * u32({of_features * of_values}))
        feature_block = u32(rest // u32({of_values}))
        value_block = u32(rest - feature_block * u32({of_values}))
        """
    )
