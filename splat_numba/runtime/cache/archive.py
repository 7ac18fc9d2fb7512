"""Kernels of one machine as a file for others like it.

Machine code is run by whoever loads it, so a file is taken only whole and only if it is the one that was made: its hash
is told to those who import it by another way than the file. Then the manifest must be of this machine and these
versions, since other entries would never be found, and every entry must be what the manifest says. All is checked
before anything is written, and again what is written.
"""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import json
import re
import shutil
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from splat_numba.errors import ArgumentError, FormatError
from splat_numba.plain import shown
from splat_numba.runtime.cache.contents import Kept
from splat_numba.runtime.cache.digest import digest_of
from splat_numba.runtime.cache.entry import CacheEntry, is_whole, write_file
from splat_numba.runtime.cache.versions import version_of

FORMAT = 1
MANIFEST = "manifest.json"
NAME = re.compile(r"[A-Za-z0-9_]{1,200}-[0-9a-f]{16}\.code")
LARGEST_MANIFEST = 16 << 20  # bytes; of 5,000 kernels it takes 1 MB
LARGEST_ENTRY = 64 << 20  # bytes; kernels take 0.1 to 2 MB


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # others have decompressors with errors of their own
# Of a zip file's parts; OSError: of places before its beginning.
UNREADABLE = (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, OSError, zlib.error)


@dataclass(frozen=True, slots=True)
class _Entry:
    """A line of the manifest."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Moved:
    """count: of kernels; sha256: of the file."""

    count: int
    sha256: str


def facts() -> dict[str, str]:
    """What machine code depends on beside its text: the processor, Python, the compilers, this package's modules."""
    from splat_numba.runtime.machine_code import target  # which imports Numba

    packages = {name: version_of(name) for name in ("numba", "llvmlite")}
    ours = digest_of("import splat_numba.runtime.pipeline")[:16]
    return {"machine": target(), "python": str(sys.implementation.cache_tag), **packages, "splat_numba": ours}


def export_kernels(kernels: Sequence[Kept], path: Path) -> Moved:
    """Write them, with a manifest, to a zip file; damaged ones, and those gone since, are left out. Raises OSError, and
    leaves no file then.
    """
    try:
        listed = _write(kernels, path)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    with path.open("rb") as file:
        return Moved(len(listed), hashlib.file_digest(file, "sha256").hexdigest())


def _write(kernels: Sequence[Kept], path: Path) -> list[dict[str, Any]]:
    listed = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for one in sorted(kernels, key=lambda one: one.path.name):
            content = _read(one.path)
            if content is not None and is_whole(one.path.name, content):
                listed.append(asdict(_Entry(one.path.name, len(content), _digest(content))))
                archive.writestr(zipfile.ZipInfo(one.path.name), content, zipfile.ZIP_DEFLATED)
        manifest = {"format": FORMAT, **facts(), "entries": listed}
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps(manifest, indent=1), zipfile.ZIP_DEFLATED)
    return listed


def import_kernels(folder: Path, path: Path, sha256: str) -> Moved:
    """Put the kernels of an exported file into a cache folder; count: of those that were not there, or damaged. sha256:
    what export_kernels said of the file.

    Raises ArgumentError where the file is another one, FormatError where it is none of export_kernels, or of another
    machine or other versions; nothing is written then. Raises OSError.
    """
    with path.open("rb") as given, tempfile.TemporaryFile(dir=folder) as file:
        shutil.copyfileobj(given, file)  # others may write to the file that is given, when its hash is known
        file.seek(0)
        found = hashlib.file_digest(file, "sha256").hexdigest()
        if not hmac.compare_digest(found.encode(), sha256.strip().lower().encode(errors="replace")):
            raise ArgumentError(
                f"sha256 wanted as that of {path}, got another: {sha256[:70]!r}. Either is not what `cache export` "
                "wrote and said: copy both anew."
            )
        entries = _checked(file)
        with zipfile.ZipFile(file) as archive:
            for one in entries:
                _content(archive, one)  # all of them before the first is written
            new = [one for one in entries if CacheEntry(folder / one.name).read() is None]
            written = [write_file(folder / one.name, _content(archive, one)) for one in new]
    return Moved(sum(written), found)


def _read(path: Path) -> bytes | None:
    """A file's bytes, None where it is gone: another process may empty a cache that is full."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _checked(file: BinaryIO) -> list[_Entry]:
    """The manifest's entries, if it is one of ours and made where we are."""
    try:
        manifest, names = _manifest(file)
        entries = [_Entry(str(one["name"]), int(one["size"]), str(one["sha256"])) for one in manifest["entries"]]
        made = {name: manifest[name] for name in ("format", *facts())}
    except (*UNREADABLE, KeyError, TypeError, ValueError, OverflowError) as error:
        raise FormatError(f"file: wanted as `cache export` writes it, got another: {error}. Export it anew.") from None
    for name, wanted in {"format": FORMAT, **facts()}.items():
        if made[name] != wanted:
            raise FormatError(
                f"file: wanted of {name} {wanted}, as here, got one of {shown(made[name])}. Its kernels would not be "
                "used here: export them on a machine like this one."
            )
    listed = [one.name for one in entries]
    if sorted([*listed, MANIFEST]) != sorted(names) or not all(NAME.fullmatch(name) for name in listed):
        raise FormatError("file: wanted with the kernels of its manifest, each once, got others. Export it anew.")
    return entries


def _manifest(file: BinaryIO) -> tuple[dict[str, Any], list[str]]:
    """The manifest, and the names of all that is in the file."""
    with zipfile.ZipFile(file) as archive:
        if archive.getinfo(MANIFEST).file_size > LARGEST_MANIFEST:
            raise ValueError("its manifest is too large")
        if not {one.compress_type for one in archive.infolist()} <= {*METHODS}:
            raise ValueError("it is compressed otherwise")
        return json.loads(archive.read(MANIFEST)), archive.namelist()


def _content(archive: zipfile.ZipFile, entry: _Entry) -> bytes:
    """An entry's bytes, if they are what the manifest says, and what the cache would read. Raises FormatError."""
    content = b""
    if archive.getinfo(entry.name).file_size == entry.size <= LARGEST_ENTRY:
        try:
            content = archive.read(entry.name)
        except UNREADABLE as error:
            raise FormatError(f"file: {entry.name} cannot be read: {error}. Export it anew.") from None
    if len(content) != entry.size or _digest(content) != entry.sha256 or not is_whole(entry.name, content):
        raise FormatError(f"file: {entry.name} wanted as its manifest says, got other bytes. Export it anew.")
    return content


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
