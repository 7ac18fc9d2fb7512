"""What mkdocs asks while it builds the site: pages from elsewhere in the repository, sections of README, the gallery.

A page is written for those who read it in the repository, too, where its links lead from file to file. Here they are
turned into the site's.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from gallery import gallery
from links import ROOT, site_place, with_site_links
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.utils import get_relative_url

SECTION = re.compile(r"^<!-- section: (\S+) (#+ .*?) -->$", re.MULTILINE)
GALLERY = "<!-- gallery -->"
FENCE = re.compile(r"^```python (\w+)$", re.MULTILINE)
PAIR = re.compile(r"^```python[^\n]*\n(.*?^```\n\n)```python[^\n]*\n(.*?^```)$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"\b(?:docs|benchmarks/results)/[\w/]+\.md\b")
TAG = re.compile(r"<(/?)(?:a|code|pre|svg)\b")  # within which names stay text
BESIDE = "migration.md"  # the page where another library's code and ours follow each other, to be shown side by side
NEEDS = {
    "gpu": "on a GPU",
    "torch": "with PyTorch",
    "jax": "with JAX",
    "transformers": "with transformers",
    "theirs": "there",
}
ELSEWHERE = (
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "CITATION.cff",
    "LICENSE",
    "benchmarks",
    "examples",
)


def on_files(files: Files, config: Any) -> Files:
    """Add pages and files from outside of docs/."""
    for name in ELSEWHERE:
        found = ROOT / name
        for path in sorted(found.rglob("*")) if found.is_dir() else [found]:
            if path.is_file() and "__pycache__" not in path.parts:
                place = site_place(path.relative_to(ROOT).as_posix())
                files.append(File.generated(config, place, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """A page's text with what it asks for, and links of the site."""
    source = Path(page.file.abs_src_path).resolve().relative_to(ROOT).as_posix()
    known, here = {file.src_uri for file in files}, page.file.src_uri
    text = with_site_links(markdown, source, here, known)
    text = SECTION.sub(lambda found: with_site_links(section(found[1], found[2]), found[1], here, known), text)
    if GALLERY in text:
        page.meta["hide"] = ["toc"]  # for the room beside it
        text = text.replace(GALLERY, gallery())
    if page.file.src_uri == BESIDE:
        page.meta["hide"] = ["toc"]
        text = PAIR.sub(side_by_side, text)
    return FENCE.sub(lambda found: f'```python title="{NEEDS[found[1]]}"', text)


def on_page_content(html: str, page: Any, config: Any, files: Files) -> str:
    """A page's HTML with a link wherever its text names another page, as docstrings and the changelog do."""
    known = {file.src_uri: file.url for file in files}
    parts, within = re.split(r"(<[^>]+>)", html), 0
    for number, part in enumerate(parts):
        tag = TAG.match(part)
        if tag:
            within += -1 if tag[1] else 1
        elif not within and not part.startswith("<"):
            parts[number] = NAMED.sub(lambda found: _link(found[0], known, page.url), part)
    return "".join(parts)


def _link(name: str, known: dict[str, str], here: str) -> str:
    place = site_place(name)
    return f'<a href="{get_relative_url(known[place], here)}">{name}</a>' if place in known else name


def side_by_side(found: re.Match[str]) -> str:
    """Two blocks of code that follow each other, as HTML that the style sheet puts side by side where there is room."""
    there, here = found[1], found[2]
    blocks = f'```python title="there"\n{there}```python title="here"\n{here}'
    return f'<div class="pair" markdown>\n\n{blocks}\n\n</div>'


def section(name: str, heading: str) -> str:
    """What stands below a heading of a file of the repository, as far as the next heading.

    Raises PluginError where there is no such heading.
    """
    lines, fenced, kept = (ROOT / name).read_text(encoding="utf-8").splitlines(), False, []
    if heading not in lines:
        raise PluginError(f"section: wanted a heading {heading!r} in {name}, got none. Correct the page's comment.")
    for line in lines[lines.index(heading) + 1 :]:
        fenced ^= line.startswith("```")
        if not fenced and line.startswith("#"):
            break
        kept.append(line)
    return "\n".join(kept)
