"""What people read on a terminal obeys no name of a file."""

from __future__ import annotations

import io

import duckdb

from jobs.text import table
from pipeline.progress import ProgressReporter
from pipeline.terminal import counted, printable, printable_lines

NAME = "\x1b[2J\x1b]0;title\x07\nred\u202e.png"


def test_characters_that_a_terminal_obeys_are_shown_as_codes() -> None:
    assert printable(NAME) == r"\x1b[2J\x1b]0;title\x07\nred\u202e.png"
    assert printable("Ærø 図.png") == "Ærø 図.png"


def test_one_is_singular() -> None:
    assert [counted(count, "file") for count in (0, 1, 2, 1000)] == ["0 files", "1 file", "2 files", "1,000 files"]


def test_no_line_of_an_error_passes_for_one_of_ours() -> None:
    text = f"{NAME} is not media\n\nerror: \x1b[1mnothing is wrong"
    first, *others = printable_lines(text).split("\n")
    assert first == r"\x1b[2J\x1b]0;title\x07"
    assert others == [r"  red\u202e.png is not media", r"  error: \x1b[1mnothing is wrong"]


def test_neither_cells_nor_columns_of_a_table_write_to_the_terminal() -> None:
    name = duckdb.sql("SELECT $name AS name", params={"name": NAME})
    pivot = duckdb.sql("PIVOT name ON name USING count(*)")
    assert pivot.columns == [NAME]
    for relation in (name, pivot):
        lines = table(relation.columns, relation.fetchall()).split("\n")
        assert len(lines) == 3
        assert all(line.isprintable() for line in lines)


def test_notes_do_not_write_to_the_terminal_either() -> None:
    stream = io.StringIO()
    with ProgressReporter(stream=stream) as progress:
        progress.note(f"an actor was lost ({NAME})")
        progress.phase(NAME)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)


def test_times_in_a_table_keep_their_milliseconds() -> None:
    shown = table(("seconds",), [(612.345,), (3661.75,), (19.6,), (0.000123,), (1.0,)]).splitlines()[2:]
    assert [cell.strip() for cell in shown] == ["612.345", "3661.75", "19.6", "0.000123", "1"]
