"""The disk cache: where it is and whom it is trusted to (place), its files (entry, lock), what they are named
after (digest, versions), which of them go first (eviction), what is there (contents), and how it moves (archive).
"""

from splat_numba.runtime.cache.entry import CacheEntry as CacheEntry
from splat_numba.runtime.cache.entry import write_file as write_file
from splat_numba.runtime.cache.lock import making as making
from splat_numba.runtime.cache.place import folder as folder
from splat_numba.runtime.cache.place import warn_once as warn_once
from splat_numba.runtime.cache.versions import version_of as version_of
