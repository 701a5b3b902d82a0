"""Text files of data sets, such as lists of names and labels."""

from __future__ import annotations

from pathlib import Path

from ran_model.datasets.listing import DataError


def numbered_lines(path: Path) -> list[tuple[int, str]]:
    """The lines that are not empty, without space around them, each with its number in the file.

    Raises DataError, which names the file, where it is no text in UTF-8.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{path} must be text in UTF-8: {error}") from None
    return [(number, line.strip()) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
