"""Where the cache is and who may have written there: loading an entry runs code, so nobody else may.

Nothing that is wrong with the folder stops a call: it is warned of, once, and kernels are compiled anew.
"""

from __future__ import annotations

import os
import stat
import warnings
from functools import cache
from pathlib import Path

from splat_numba.plain import cause
from splat_numba.runtime.cache.versions import version_of
from splat_numba.settings import Settings


def folder(settings: Settings) -> Path | None:
    """The cache folder, made if need be; None, after a warning, where it is off, cannot be made or is open to others.

    It may be one that can only be read. Looked at anew for each compilation: it may have been deleted or opened.
    """
    if not settings.cache:
        return None
    try:
        base = _base(settings)
        path = base / f"numba-{version_of('numba')}"
        str(path).encode()  # UnicodeEncodeError for bytes that are no UTF-8: Numba wants texts' names in it
        if not base.is_dir():
            base.parent.mkdir(parents=True, exist_ok=True)
        for one in (base, path):
            if not one.is_dir():
                one.mkdir(mode=0o700, exist_ok=True)
            if reason := untrusted(one.stat()):
                warn_once(
                    f"cache folder {one} is not used: it {reason}. Run `chmod 700` on it, or set SPLAT_CACHE_DIR."
                )
                return None
    except (
        OSError,
        RuntimeError,
        ValueError,
    ) as error:  # RuntimeError: no home; ValueError: zeros or bytes in it
        warn_once(
            f"cache folder {_short(settings.cache_dir or 'of this user')} cannot be used ({_short(cause(error))}): "
            "kernels are compiled anew. Set SPLAT_CACHE_DIR."
        )
        return None
    return path


def _base(settings: Settings) -> Path:
    """The folder of all versions, without links. Raises RuntimeError where the user has no home folder."""
    if settings.cache_dir is not None:
        return settings.cache_dir.expanduser().resolve()
    import platformdirs

    base = Path(platformdirs.user_cache_dir("splat-numba"))
    if not base.is_absolute():  # "~/.cache" of a user without a home
        raise RuntimeError("Could not determine home directory.")
    return base.resolve()


def _short(value: object) -> str:
    """At most 200 characters, the middle left out."""
    text = str(value)
    return text if len(text) <= 200 else f"{text[:120]} ... {text[-60:]}"


def untrusted(status: os.stat_result) -> str | None:
    """Why others could have planted code in a file or folder, None if they could not: root can do so anywhere."""
    if os.name != "posix":
        return None  # a Windows profile folder is its user's own
    if status.st_uid not in (0, os.getuid()):
        return f"belongs to user {status.st_uid}, not to this one ({os.getuid()})"
    if stat.S_IMODE(status.st_mode) & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):o})"
    return None


@cache
def warn_once(message: str) -> None:
    """Once a process: what is wrong with the folder is so for every kernel."""
    warnings.warn(message, RuntimeWarning, stacklevel=3)
