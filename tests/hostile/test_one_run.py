"""Hundreds of hostile files in one run: each gives right rows or one clear error row, and nothing else happens."""

from __future__ import annotations

import json
from pathlib import Path

import av
import pytest

from tests.conftest import run_cli_here
from tests.hostile import playlists
from tests.hostile.aftermath import Aftermath
from tests.hostile.canaries import HEIGHT, WIDTH, Canaries
from tests.hostile.case import ACCIDENTS
from tests.hostile.corpus import IN_EVERY_RUN, LEAST_FILES

pytestmark = pytest.mark.timeout(1800)


def test_the_corpus_is_as_large_as_it_says(aftermath: Aftermath, whole_corpus: bool) -> None:
    if whole_corpus:
        assert len(aftermath.cases) >= LEAST_FILES
    else:
        assert {case.name for case in aftermath.cases} == IN_EVERY_RUN
        assert len(IN_EVERY_RUN) == 60


def test_the_run_ends_and_says_that_some_files_failed(aftermath: Aftermath) -> None:
    assert aftermath.exit_code == 3, aftermath.stderr[-4000:]
    assert "Traceback" not in aftermath.stderr
    assert "--max-error-rate" in aftermath.stderr


def test_each_file_has_right_rows_or_one_clear_error_row(aftermath: Aftermath) -> None:
    complaints = {}
    for case in aftermath.cases:
        rows = aftermath.segments[case.name]
        wrong = case.outcome.complaints(rows) if rows or case.sources else []
        sources = {row["source_id"] for row in rows}
        if len(sources) != case.sources:
            wrong.append(f"{len(sources)} sources, not {case.sources}")
        if wrong:
            complaints[case.name] = wrong
    assert not complaints, json.dumps(complaints, indent=1)


def test_no_file_took_the_decoder_along(aftermath: Aftermath) -> None:
    allowed = {case.name: case.outcome.codes for case in aftermath.cases}
    fallen = {
        name: row["error_message"]
        for name, rows in aftermath.segments.items()
        for row in rows
        if row["error_code"] in ACCIDENTS - allowed[name]
    }
    assert not fallen


def test_faces_fit_their_frames_and_their_cases(aftermath: Aftermath) -> None:
    expected = {case.name: case.rows for case in aftermath.cases}
    for row in aftermath.faces:
        assert row["frame_width"] > 0
        assert row["frame_height"] > 0
        for column, value in expected[row["case"]].items():
            assert row[column] == value, row["case"]
    counted = sum(row["faces_kept"] for rows in aftermath.segments.values() for row in rows)
    assert counted == len(aftermath.faces) > 0


def test_nothing_was_opened_that_was_not_named(aftermath: Aftermath) -> None:
    allowed = {case.name for case in aftermath.cases if case.name == "pattern-among-canaries"}
    visits = [visit for visit in aftermath.visits if not (allowed and visit == "frame%03d.png")]
    assert not visits
    assert not [row for row in aftermath.faces if (row["frame_width"], row["frame_height"]) == (WIDTH, HEIGHT)]
    assert not [row for row in aftermath.sources if "canary." in row["source_uri"]]


def test_the_canaries_would_have_noticed(canaries: Canaries, tmp_path: Path, aftermath: Aftermath) -> None:
    """The same playlists in the hands of a reader that follows them."""
    named = {case.name: case for case in playlists.cases(canaries)}
    for case, visit in (
        ("m3u8-path-named", "canary.ts"),
        ("ffconcat-named", "canary.ts"),
        ("m3u8-address-named", "/canary.ts"),
    ):
        canaries.watch()
        path = named[case].write(tmp_path)
        with av.open(str(path), options={"safe": "0", "protocol_whitelist": "file,http,tcp,crypto"}) as container:
            frame = next(container.decode(video=0))
            assert (frame.width, frame.height) == (WIDTH, HEIGHT)
        assert visit in canaries.visits


def test_nothing_was_written_outside_of_output_and_scratch(aftermath: Aftermath) -> None:
    assert not aftermath.strays
    assert not Path("/tmp/ran-hostile-escaped.png").exists()
    assert not list(aftermath.output.parent.parent.glob("escaped*"))


def test_no_process_outlived_the_run(aftermath: Aftermath) -> None:
    assert not aftermath.survivors


def test_the_same_command_again_finds_nothing_to_do(aftermath: Aftermath) -> None:
    rows = json.loads(run_cli_here("errors", aftermath.output, "--json").stdout)
    failed = [row for rows in aftermath.segments.values() for row in rows if row["status"] != "ok"]
    assert len(rows) == len(failed)


def test_names_cannot_write_to_the_terminal(aftermath: Aftermath) -> None:
    """Control characters in names reach neither the log nor what `errors` prints for people."""
    shown = run_cli_here("errors", aftermath.output)
    assert shown.returncode == 0, shown.stderr
    for text in (aftermath.stdout, aftermath.stderr, shown.stdout):
        assert not [letter for letter in text if (ord(letter) < 32 and letter != "\n") or letter == "\x7f"]
