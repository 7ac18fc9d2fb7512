"""The disk cache: where it is, who may write to it, and what in it can be trusted.

Loading an entry runs code, so the folder belongs to its owner alone. Numba keeps the machine code, keyed by processor
and signature, beside the generated file; a manifest of hashes makes a damaged entry a miss instead of a crash.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import sys
import warnings
from functools import cache
from pathlib import Path

from splat_numba.settings import Settings

TEXT_MODULES = ("halves", "lanes", "simd", "tiles", "vectors")  # of this folder: what generated text imports


@cache
def version_tag() -> str:
    """Changes with every version of Numba, and of the modules that generated text imports.

    From metadata and files, with no import: a kernel that is on disk would wait 250 ms for Numba to name its entry.
    """
    digest = hashlib.sha256()
    for name in TEXT_MODULES:
        digest.update(Path(__file__).with_name(f"{name}.py").read_bytes())
    return f"numba-{version_of('numba')}-{digest.hexdigest()[:12]}"


def version_of(package: str) -> str:
    """The version of an installed package; "unknown" for one that is not, or that something else stands in for."""
    found, complete = _metadata_folders()
    name = _normalised(package)
    if name in found or complete:
        return found.get(name, "unknown")
    from importlib.metadata import PackageNotFoundError, version  # 15 ms: it imports email, zipfile and socket

    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


def _normalised(package: str) -> str:
    return re.sub(r"[-_.]+", "_", package).lower()


@cache
def _metadata_folders() -> tuple[dict[str, str], bool]:
    """The version in the name of every installed package's metadata, by the package's name; and whether that is all:
    an archive on the path may hold more.
    """
    found: dict[str, str] = {}
    complete = True
    for folder in sys.path:
        try:
            names = os.listdir(folder or ".")  # noqa: PTH208 - 2000 Path objects take 4 ms
        except FileNotFoundError:
            continue
        except OSError:
            complete = False
            continue
        for name in names:
            stem, dot, kind = name.rpartition(".")
            package, dash, rest = stem.partition("-")
            if dot and dash and kind in ("dist-info", "egg-info"):
                found.setdefault(_normalised(package), rest.partition("-")[0])  # an egg's goes on with -py3.12
    return found, complete


def folder(settings: Settings) -> Path | None:
    """The cache folder, made if need be; None, after a warning, where it is off, unwritable or open to others."""
    if not settings.cache:
        return None
    base = settings.cache_dir
    if base is None:
        import platformdirs

        base = Path(platformdirs.user_cache_dir("splat-numba"))
    path = base / version_tag()  # looked at anew for each compilation: it may have been deleted, or opened to others
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for one in (base, path):
            one.mkdir(mode=0o700, exist_ok=True)
            if reason := _untrusted(one):
                _warn(f"cache folder {one} is not used: it {reason}. Run `chmod 700` on it, or set SPLAT_CACHE_DIR.")
                return None
        probe = path / f".probe-{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        _warn(f"cache folder {path} cannot be used ({error}): kernels are compiled anew. Set SPLAT_CACHE_DIR.")
        return None
    return path


def _untrusted(path: Path) -> str | None:
    """Why others could have planted code there, None if they could not."""
    if os.name != "posix":
        return None  # a Windows profile folder is its user's own
    status = path.stat()
    if status.st_uid != os.getuid():
        return f"belongs to user {status.st_uid}, not to this one ({os.getuid()})"
    if stat.S_IMODE(status.st_mode) & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


@cache
def _warn(message: str) -> None:
    """Once a process: what is wrong with the folder is so for every kernel."""
    warnings.warn(message, RuntimeWarning, stacklevel=2)


class Entry:
    """The machine code that Numba keeps for one generated file, and its manifest."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._manifest = path.with_suffix(".sha256")

    def _artifacts(self) -> list[Path]:
        return sorted((self._path.parent / "__pycache__").glob(f"{self._path.stem}.*.nb[ic]"))

    def _digests(self) -> str:
        return "".join(f"{hashlib.sha256(a.read_bytes()).hexdigest()}  {a.name}\n" for a in self._artifacts())

    def intact(self) -> bool:
        """Whether the entry is there and is what was written."""
        try:
            return self._manifest.read_text(encoding="utf-8") == self._digests() != ""
        except (OSError, UnicodeDecodeError):
            return False

    def seal(self) -> None:
        """Record what the entry holds now."""
        temporary = self._manifest.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(self._digests(), encoding="utf-8")
        temporary.replace(self._manifest)

    def clear(self) -> None:
        """Forget the entry."""
        for path in [*self._artifacts(), self._manifest]:
            path.unlink(missing_ok=True)
