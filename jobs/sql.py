"""Text put into SQL."""

from __future__ import annotations


def quoted(name: str) -> str:
    """A name as an SQL identifier; names of regions come from a model's configuration."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A string as an SQL literal."""
    return "'" + text.replace("'", "''") + "'"
