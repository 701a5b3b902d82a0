"""What goes to a terminal."""

from __future__ import annotations


def printable(text: str) -> str:
    """`text` without characters that a terminal obeys: names of files may hold colours, bells and line ends."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
