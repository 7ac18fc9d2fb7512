"""Where files of the repository stand in the site, and links between files there as links between pages here."""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[2]
LINK = re.compile(r"\]\(([^)\s]+)\)")
RENAMED = {
    "README.md": "readme.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "LICENSE": "LICENSE.txt",  # so that a browser shows it
}
MOVED = (("docs/", ""), ("benchmarks/results/", "results/"))


def site_place(name: str) -> str:
    """Where a file of the repository stands in the site, both as paths from their roots."""
    for start, place in MOVED:
        if name.startswith(start):
            return place + name.removeprefix(start)
    return RENAMED.get(name, name)


def with_site_links(text: str, source: str, here: str, known: set[str]) -> str:
    """The text of ``source``, a file of the repository, with the links of the site's page ``here``.

    known: the site's files. A link to what the site has not is left as it is, so that mkdocs warns of it.
    """

    def turned(found: re.Match[str]) -> str:
        target, _, anchor = found[1].partition("#")
        if not target and site_place(source) != here:  # to a section of a page of which only a part stands here
            target = PurePosixPath(source).name
        if "://" in target or not target or target.startswith("/"):
            return found[0]
        named = os.path.normpath(PurePosixPath(source).parent / target)
        place = site_place(PurePosixPath(named).as_posix())
        if place not in known:
            return found[0]
        path = PurePosixPath(os.path.relpath(place, PurePosixPath(here).parent)).as_posix()
        return f"]({path}#{anchor})" if anchor else f"]({path})"

    return LINK.sub(turned, text)
