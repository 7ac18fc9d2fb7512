"""README and docs as text: fenced blocks with their places, commands, links, tables.

A page of code, and not sybil or pytest-examples: those make a test of every block, which xdist hands to different
processes, while the blocks of a page use each other's names.
"""

import ast
import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"splat-numba [a-z][^`&]*")


@dataclass(frozen=True)
class Block:
    """words: of the line that opens it, such as ["python", "gpu"]; line: the number of its first line; follows: whether
    it stands directly below the block before it.
    """

    words: list[str]
    text: str
    line: int
    follows: bool


def name_of(page):
    """A page's path from the root, for messages: two pages may have one name."""
    return page.relative_to(ROOT).as_posix()


def blocks_of(page):
    """The fenced blocks of a page, in order."""
    text = page.read_text(encoding="utf-8")
    found, end = [], -1
    for match in FENCED.finditer(text):
        line = text.count("\n", 0, match.start(2)) + 1
        found.append(
            Block(match[1].split(), match[2], line, not text[end : match.start()].strip() if end >= 0 else False)
        )
        end = match.end()
    return found


def needed_blocks(page, *needs):
    """Blocks of Python that say one of ``needs``, and those plain ones before them whose names they use; without
    ``needs`` all plain ones. Others of the page are left to the test without needs.
    """
    python = [block for block in blocks_of(page) if block.words[:1] == ["python"] and {*block.words[1:]} <= {*needs}]
    kept, used = [], set()
    for block in reversed(python):
        made, read = _names(block.text)
        if not needs or block.words[1:] or made & used:
            kept.append(block)
            used = (used - made) | read
    return kept


def _names(code):
    """Names that code makes, and that it reads."""
    made, read = set(), set()
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Name):
            (read if isinstance(node.ctx, ast.Load) else made).add(node.id)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            made.add(node.name)
        elif isinstance(node, ast.alias):
            made.add((node.asname or node.name).partition(".")[0])
    return made, read


def commands_of(text):
    """Arguments of every `splat-numba` command in sh blocks and between backquotes; not of lists of commands."""
    lines = [line for words, inner in FENCED.findall(text) if words == "sh" for line in inner.splitlines()]
    inline = re.findall(r"`(splat-numba [^`]*)`", FENCED.sub("", text), re.DOTALL)
    found = [shlex.split(match[0], comments=True)[1:] for line in (*lines, *inline) for match in COMMAND.finditer(line)]
    return [arguments for arguments in found if "|" not in arguments]


def table_below(page, start):
    """The cells of the first table below the line that begins with ``start``, a list a row, without its head."""
    lines = page.read_text(encoding="utf-8").partition(f"\n{start}")[2].splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            return rows
        rows.append([cell.strip() for cell in line.strip("|").split("|")])
    return rows
