"""A file of the cache: a hash, and what it is of. No lock is needed to read it, and only what was hashed is used."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from splat_numba.runtime.cache.digest import digest_of
from splat_numba.runtime.cache.eviction import shrink
from splat_numba.runtime.cache.lock import making
from splat_numba.runtime.cache.place import untrusted, warn_once

T = TypeVar("T")

FRESH = 3600.0  # seconds for which an entry that was read counts as just used: not every start writes to the disk


@dataclass(frozen=True, slots=True)
class CacheEntry:
    """The content of one file, whole or absent. limit: bytes for the whole cache, 0 for none."""

    path: Path
    limit: int = 0

    @classmethod
    def of(cls, folder: Path, name: str, text: str, facts: str, limit: int = 0, made_by: str = "") -> CacheEntry | None:
        """The place of a text's machine code. facts: all that it depends on beside the text and what that imports;
        made_by: imports the modules of ours that compile it. None, after a warning, where modules cannot be read.
        """
        try:
            modules = digest_of(text) + digest_of(made_by)
            key = hashlib.sha256(f"{text}\0{modules}\0{facts}".encode()).hexdigest()[:16]
        except (OSError, ImportError) as error:
            warn_once(f"cache is not used: what machine code depends on is not known ({error}). Install the .py files.")
            return None
        return cls(folder / f"{name}-{key}.code", limit)

    def read(self) -> bytes | None:
        """What was written, None where nothing is or where it is damaged or of somebody else."""
        try:
            with self.path.open("rb") as file:
                status = os.fstat(file.fileno())
                content = b"" if untrusted(status) else file.read()
        except OSError:
            return None
        digest, _, payload = content.partition(b"\n")
        if digest != _digest(self.path.name, payload):
            return None
        if time.time() - status.st_mtime > FRESH:
            with suppress(OSError):
                os.utime(self.path)  # eviction begins with what was used longest ago
        return payload

    def write(self, payload: bytes) -> bool:
        """Store it; False, after a warning, where that fails."""
        return write_file(self.path, _digest(self.path.name, payload) + b"\n" + payload)

    def load_or(self, load: Callable[[bytes], T | None], make: Callable[[], tuple[T, bytes | None]]) -> tuple[T, bool]:
        """The value loaded from here, or made and stored, and whether it came from here. load: gives None for content
        that it cannot use; make: gives the value and what to store. Of several processes one makes it.
        """
        if (found := self._loaded(load)) is not None:
            return found, True
        with making(self.path):
            if (found := self._loaded(load)) is not None:  # somebody else made it meanwhile
                return found, True
            value, payload = make()
            if payload is not None and self.write(payload):
                shrink(self.path.parent, self.limit)
            return value, False

    def _loaded(self, load: Callable[[bytes], T | None]) -> T | None:
        payload = self.read()
        return None if payload is None else load(payload)


def is_whole(name: str, content: bytes) -> bool:
    """Whether a file of this name holds what was written to it."""
    digest, _, payload = content.partition(b"\n")
    return digest == _digest(name, payload)


def _digest(name: str, payload: bytes) -> bytes:
    """Of the name, too: the content of another entry is damage here."""
    return hashlib.sha256(name.encode() + b"\0" + payload).hexdigest().encode()


def write_file(path: Path, content: bytes) -> bool:
    """Write by a temporary file and a rename; False, after a warning, where that fails. Nothing half-written stays."""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f"{path.stem[:40]}-", suffix=".tmp")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            Path(temporary).replace(path)
        except BaseException:
            with suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        warn_once(
            f"cache folder {path.parent} cannot be written ({error.strerror}): kernels that are not there are compiled "
            "anew. Make room or mend it, or set SPLAT_CACHE_DIR."
        )
        return False
    return True
