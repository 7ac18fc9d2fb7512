"""Every fence of every text that a call runs is taken away, one at a time: an error, or other numbers, must follow."""

import copy
import re

from splat_numba.emulator.text import launch
from splat_numba.errors import EmulationError

FENCE = re.compile(r"^ *ptx\.(fence_\w+|wgmma_fence)\(.*$", re.MULTILINE)


class WithoutFences:
    """In place of emulator.text.launch: runs each text as it is, and before that without each of its fences.

    entries: the functions that were tried; survivors: fences that nobody missed.
    """

    def __init__(self):
        self.entries, self.survivors, self._tried = set(), [], set()

    def __call__(self, text, name, entry, values, memory, maps, *, grid, late=False):
        left = []
        if text not in self._tried:
            self._tried.add(text)
            self.entries.add(entry.name)
            for fence in FENCE.finditer(text):
                changed = text[: fence.start()] + re.sub(r"ptx\..*", "pass", fence.group()) + text[fence.end() :]
                other = copy.deepcopy(memory)
                try:
                    launch(changed, name, entry, values, other, maps, grid=grid, late=late)
                except EmulationError:
                    continue
                left.append((f"{fence.group(1)} of {entry.name}", other))
        launch(text, name, entry, values, memory, maps, grid=grid, late=late)
        self.survivors += [what for what, other in left if other.holds_what(memory)]
