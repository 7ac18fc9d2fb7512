"""How many examples a test draws: few where every commit waits for them, many where new failures are looked for."""

from hypothesis import settings

EXPLORING = settings.get_current_profile_name() in {"explore", "nightly"}


def draws(few: int) -> int:
    """``few`` examples, and twenty times as many in the profiles that explore."""
    return 20 * few if EXPLORING else few
