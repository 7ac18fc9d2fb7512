"""Who knows of whose fences: by having made them, by an mbarrier, or by a barrier of the whole block."""

import numpy as np
import pytest

from splat_numba.emulator.fences import BARRIERS, STORES, Fences
from splat_numba.errors import EmulationError

WRITER, TOLD, OTHER = 3, 5, 6


@pytest.fixture
def stored():
    """(fences, the stamp of a store by WRITER), the store fenced; OTHER has stored and not fenced."""
    fences = Fences()
    fences.make(WRITER, STORES)  # of something before
    stamp = fences.stamp(STORES, WRITER)
    assert fences.missing(STORES, WRITER, stamp)
    fences.make(WRITER, STORES)
    return fences, stamp


def knows(fences, warp, stamp):
    return not fences.missing(STORES, warp, stamp)


def test_who_fences_knows_at_once_and_others_do_not(stored):
    fences, stamp = stored
    assert knows(fences, WRITER, stamp)
    assert not knows(fences, TOLD, stamp)
    assert not knows(fences, WRITER, fences.stamp(STORES, WRITER))


def test_a_barrier_tells_who_waited_what_those_who_arrived_knew(stored):
    fences, stamp = stored
    before = fences.stamp(STORES, OTHER)
    fences.learn(TOLD, fences.news(WRITER))
    assert knows(fences, TOLD, stamp)
    assert not knows(fences, OTHER, stamp)
    fences.learn(OTHER, fences.news(TOLD))  # by way of another
    assert knows(fences, OTHER, stamp)
    assert not knows(fences, TOLD, before)


def test_the_block_s_barrier_tells_everybody_and_makes_no_fences(stored):
    fences, stamp = stored
    unfenced = fences.stamp(STORES, OTHER)
    fences.meet()
    assert all(knows(fences, warp, stamp) for warp in (TOLD, OTHER, 0, 31))
    assert not any(knows(fences, warp, unfenced) for warp in (WRITER, TOLD, OTHER))


def test_fences_of_stores_and_of_barriers_are_apart(stored):
    fences, _ = stored
    made = fences.stamp(BARRIERS, WRITER)
    fences.make(WRITER, STORES)
    assert fences.missing(BARRIERS, WRITER, made)
    fences.make(WRITER, BARRIERS)
    assert not fences.missing(BARRIERS, WRITER, made)


def test_a_message_names_who_should_have_fenced(stored):
    fences, stamp = stored
    stamps, places = np.array([-1, stamp, fences.stamp(STORES, OTHER)]), np.arange(0x400, 0x403)
    named = []
    wanted = r"^it wanted fence_shared by warps 3, 6 between .* got none, at 0x401, 0x402$"
    with pytest.raises(EmulationError, match=wanted):
        fences.check_stores(TOLD, stamps, places, lambda bad: named.append(bad.tolist()) or "it")
    assert named == [[False, True, True]]
    fences.check_stores(TOLD, stamps[:1], places[:1], lambda _: "it")
