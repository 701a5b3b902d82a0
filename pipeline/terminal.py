"""What people read."""

from __future__ import annotations

from pipeline.urls import without_credentials


def printable(text: str) -> str:
    """`text` without characters that a terminal obeys: names of files may hold colours, bells and line ends."""
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)


def printable_lines(text: str) -> str:
    """Each line of `text` printable, and all but the first indented: none can pass for a line of ours."""
    return "\n  ".join(printable(line) for line in text.split("\n") if line.strip())


def error_line(error: Exception) -> str:
    """An error that users can mend, as every command ends with it."""
    return f"error: {printable_lines(without_credentials(str(error)))}"


def counted(count: int, noun: str) -> str:
    """1 source, 2 sources, 1,000 sources."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
