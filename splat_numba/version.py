"""The version: the one place where it stands, from which pyproject.toml and all that names it have it."""

__version__ = "0.1.0"
