"""Retry what failed, replace what changed, add what is new, compact: each ends as one undisturbed run would have."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pytest

from tests.conftest import DEMO_MEDIA, run_cli_here, save_tiny_model
from tests.datasets import assert_equal_datasets, table

pytestmark = pytest.mark.usefixtures("ray_address")

RUN = ("--segment-frames", "8", "--decode-actors", "1", "--commit-interval-s", "1e-6", "--json", "--quiet")


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("media")
    for name in ("portrait.mp4", "portraits.tar", "astronaut.png"):
        shutil.copy(DEMO_MEDIA / name, folder)
    with tarfile.open(folder / "videos.tar", "w") as archive:  # no run of pictures: no segment of the archive itself
        archive.add(DEMO_MEDIA / "portrait.mp4", "portrait.mp4")
    return folder


@pytest.fixture(scope="module")
def undisturbed(media: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("undisturbed") / "out"
    _run(media, output, tiny_model, "--keep-crops")
    return output


def _run(inputs: Path, output: Path, model: Path, *options: str, code: int = 0) -> dict[str, Any]:
    done = run_cli_here("run", inputs, "-o", output, "--model", model, *RUN, *options)
    assert done.returncode == code, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _is_sound(output: Path) -> bool:
    done = run_cli_here("verify", output)
    assert done.returncode == 0, done.stdout + done.stderr
    return True


def test_retry_makes_good_what_had_no_time(media: Path, undisturbed: Path, tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    failed = _run(media, output, tiny_model, "--deadline-s", "0.000001", code=3)
    assert set(failed["failures"]) == {"timeout"}
    segments, sources = failed["failures"]["timeout"], failed["failed_sources"]
    assert segments >= sources >= 1  # an answer that is there before the clock is looked at counts
    nothing = run_cli_here("retry", output, "--code", "corrupt", "--model", tiny_model, "--json")
    assert nothing.returncode == 0, nothing.stderr
    assert json.loads(nothing.stdout)["segments_planned"] == 0
    assert pc.count(table(output, "segments")["error_code"]).as_py() == segments
    again = run_cli_here(
        "retry", output, "--model", tiny_model, "--decode-actors", "1", "--commit-interval-s", "1e-6", "--json"
    )
    assert again.returncode == 0, again.stderr
    answer = json.loads(again.stdout)
    assert (answer["sources"], answer["failed_sources"]) == (sources, 0)
    assert_equal_datasets(output, undisturbed)
    assert _is_sound(output)
    assert json.loads(run_cli_here("errors", output, "--json").stdout) == []
    runs = json.loads(run_cli_here("inspect", output, "--json").stdout)["runs"]
    assert [(run["status"], run["failed_sources"]) for run in runs] == [("done", sources), ("done", 0)]


def test_the_error_of_a_file_that_was_mended_leaves(media: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    shutil.copy(media / "astronaut.png", folder)
    whole = (media / "portrait.mp4").read_bytes()
    (folder / "broken.mp4").write_bytes(whole[:1000])
    inputs = ("run", folder / "astronaut.png", folder / "broken.mp4", folder / "late.png", "-o", output)
    run = (*inputs, "--model", tiny_model, *RUN)
    first = run_cli_here(*run)
    assert first.returncode == 3, first.stderr
    assert json.loads(first.stdout)["failed_sources"] == 2
    (folder / "broken.mp4").write_bytes(whole)
    os.utime(folder / "astronaut.png", (1, 1))  # changed, so an error beside its good rows
    changed = run_cli_here(*run)
    assert (changed.returncode, json.loads(changed.stdout)["failures"]) == (3, {"source_changed": 1}), changed.stderr
    left = json.loads(run_cli_here("errors", output, "--json").stdout)
    assert sorted(one["error_code"] for one in left) == ["not_found", "source_changed"]
    shutil.copy(media / "astronaut.png", folder / "late.png")
    again = run_cli_here(*run, "--on-changed", "replace")
    assert again.returncode == 0, again.stderr
    assert json.loads(run_cli_here("errors", output, "--json").stdout) == []
    assert sorted(table(output, "sources")["source_uri"].to_pylist()) == sorted(
        str(folder / name) for name in ("astronaut.png", "broken.mp4", "late.png")
    )
    assert _is_sound(output)


def test_retry_keeps_crops_and_failures_that_it_was_not_asked_for(
    media: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    face = (media / "astronaut.png").read_bytes()
    with tarfile.open(folder / "a.tar", "w") as archive:
        for name, data in (("a.png", face), ("b.png", face[:5000]), ("c.png", face)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (folder / "empty.png").write_bytes(b"")
    _run(folder, output, tiny_model, "--keep-crops", code=3)
    first = _runs_of_failures(output)
    assert len(first) == 2
    crops = set(table(output, "crops")["face_id"].to_pylist())
    assert len(crops) == 2
    again = run_cli_here("retry", output, "--model", tiny_model, "--code", "archive_member", "--json")
    assert again.returncode == 3, again.stderr  # the damaged member is still one
    second = _runs_of_failures(output)
    assert second == first | {"archive_member": json.loads(again.stdout)["run_id"]} != first
    assert set(table(output, "crops")["face_id"].to_pylist()) == crops
    assert _is_sound(output)


def _runs_of_failures(output: Path) -> dict[str, str]:
    """The run that wrote the row of each error code."""
    rows = table(output, "segments").to_pylist()
    failed = [(row["error_code"], row["run_id"]) for row in rows if row["error_code"] is not None]
    assert len(dict(failed)) == len(failed)
    return dict(failed)


def test_retry_detects_with_the_weights_of_the_dataset(undisturbed: Path, tiny_model: Path, tmp_path: Path) -> None:
    weights = tmp_path / "other.onnx"
    weights.write_bytes(b"other weights")
    done = run_cli_here("retry", undisturbed, "--model", tiny_model, "--detector-weights", weights)
    assert done.returncode == 2, done.stderr
    assert "found with other weights of retinaface-mobilenet0.25" in done.stderr
    assert "--detector-weights" in done.stderr


def test_a_changed_file_is_an_error_until_it_is_to_be_replaced(media: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("portraits.tar", "astronaut.png"):
        shutil.copy(media / name, folder)
    _run(folder, output, tiny_model)
    before = table(output, "faces").num_rows
    picture = (folder / "astronaut.png").read_bytes()
    (folder / "astronaut.png").write_bytes(picture)
    os.utime(folder / "astronaut.png", (1, 1))
    shutil.copy(folder / "portraits.tar", folder / "late.tar")

    answer = _run(folder, output, tiny_model, code=3)
    assert answer["failures"] == {"source_changed": 1}
    assert answer["sources_probed"] == 1  # only the new one
    assert table(output, "faces").num_rows == before + 11
    os.utime(folder / "astronaut.png", (2, 2))
    _run(folder, output, tiny_model, code=3)  # each content that was met has its error row

    answer = _run(folder, output, tiny_model, "--on-changed", "replace")
    assert answer["failed_sources"] == 0
    assert answer["segments_done"] == 1
    fresh = tmp_path / "fresh"
    _run(folder, fresh, tiny_model)
    assert_equal_datasets(output, fresh)
    assert _is_sound(output)


def test_a_replacement_that_can_not_begin_takes_nothing_away(media: Path, tiny_model: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    for name in ("portrait.mp4", "astronaut.png"):
        shutil.copy(media / name, folder)
    shutil.copy(media / "astronaut.png", folder / "later.png")
    _run(folder, output, tiny_model)
    before = _good_rows(output)
    whole = (folder / "portrait.mp4").read_bytes()
    (folder / "portrait.mp4").write_bytes(whole[:1000])  # it is still being copied
    pictures = ("astronaut.png", "later.png")
    for name in pictures:
        os.utime(folder / name, (1, 1))
    _run(folder, output, tiny_model, code=3)

    refused = run_cli_here(
        "run", folder, "-o", output, "--model", tiny_model, "--segment-frames", "8", "--on-changed", "replace",
        "--decode-actors", "99",
    )  # fmt: skip
    assert refused.returncode == 4, refused.stderr
    assert _good_rows(output) == before
    _run(folder, output, tiny_model, "--on-changed", "replace", "--limit", "1", code=3)
    limited = _good_rows(output)
    assert sorted(limited[name] == before[name] for name in pictures) == [False, True], "it begins one of them"

    done = run_cli_here("run", folder, "-o", output, "--model", tiny_model, *RUN[:-1], "--on-changed", "replace")
    assert done.returncode == 3, done.stderr
    assert f"can't be read as they are now, so their old rows stay: {folder / 'portrait.mp4'} (" in done.stderr
    assert "the old rows of 1 changed file were taken out" in done.stderr
    after = _good_rows(output)
    assert after["portrait.mp4"] == before["portrait.mp4"]
    for name in pictures:
        assert after[name].isdisjoint(before[name])
        assert len(after[name]) == 1
    (left,) = json.loads(run_cli_here("errors", output, "--json").stdout)
    assert (left["source_uri"], left["error_code"]) == (str(folder / "portrait.mp4"), "source_changed")

    (folder / "portrait.mp4").write_bytes(whole)
    os.utime(folder / "portrait.mp4", (2, 2))
    assert _run(folder, output, tiny_model, "--on-changed", "replace")["failed_sources"] == 0
    fresh = tmp_path / "fresh"
    _run(folder, fresh, tiny_model)
    assert_equal_datasets(output, fresh)
    assert _is_sound(output)


def _good_rows(output: Path) -> dict[str, set[str]]:
    """Segments without an error, by the name of their file."""
    rows = table(output, "segments").filter(pc.field("status") == "ok").to_pylist()
    names = {Path(row["source_uri"]).name for row in rows}
    return {name: {row["segment_id"] for row in rows if row["source_uri"].endswith(name)} for name in names}


def test_rows_of_other_models_that_leave_with_a_replaced_file_are_told_of(
    media: Path, tiny_model: Path, tmp_path: Path
) -> None:
    folder, output, other = tmp_path / "in", tmp_path / "out", save_tiny_model(tmp_path / "other", seed=8)
    folder.mkdir()
    shutil.copy(media / "astronaut.png", folder)
    _run(folder, output, tiny_model)
    model_id = _run(folder, output, other)["model_id"]
    os.utime(folder / "astronaut.png", (1, 1))
    given = (folder, "-o", output, "--model", tiny_model, "--segment-frames", "8", "--json")
    plans = [json.loads(run_cli_here("plan", *given, "--on-changed", what).stdout) for what in ("error", "replace")]
    assert [plan["notes"] for plan in plans] == [[], ["the old rows of 1 changed file leave, those of every model"]]
    notes = _run(folder, output, tiny_model, "--on-changed", "replace")["notes"]  # quietly, as a script does
    assert "the old rows of 1 changed file were taken out" in notes[0]
    assert f"rows of other models ({model_id}) went too: `reprocess {output} --model DIR`" in notes[1]
    assert model_id not in table(output, "segments")["model_id"].to_pylist()
    mended = run_cli_here("reprocess", output, "--model", other)
    assert mended.returncode == 0, mended.stderr
    assert table(output, "segments")["model_id"].to_pylist().count(model_id) == 1
    assert _is_sound(output)


def test_compact_leaves_every_row_and_few_files(
    undisturbed: Path, media: Path, tiny_model: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    files = len(list(output.glob("[fsc]*/**/*.parquet")))
    done = run_cli_here("compact", output, "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["files_before"] == files > 8
    assert answer["files_after"] == len(list(output.glob("[fsc]*/**/*.parquet"))) == 4
    assert_equal_datasets(output, undisturbed)
    assert table(output, "crops").num_rows == table(undisturbed, "crops").num_rows
    assert _is_sound(output)
    again = run_cli_here("run", media, "-o", output, "--model", tiny_model, *RUN, "--keep-crops")
    assert json.loads(again.stdout)["segments_done"] == 0


@pytest.mark.parametrize("damage", ["cut", "gone"])
@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("faces", ("query", "OUT", "SELECT count(DISTINCT source_id) FROM faces")),
        ("faces", ("compact", "OUT")),
        ("segments", ("errors", "OUT")),
        ("sources", ("retry", "OUT", "--model", "MODEL")),
    ],
)
def test_commands_that_meet_a_damaged_file_say_what_mends_it(
    undisturbed: Path, tiny_model: Path, tmp_path: Path, name: str, command: tuple[str, ...], damage: str
) -> None:
    output = tmp_path / "out"
    shutil.copytree(undisturbed, output)
    for path in (output / name).rglob("*.parquet"):
        if damage == "gone":
            path.unlink()
        else:
            os.truncate(path, path.stat().st_size // 2)
    given = {"OUT": str(output), "MODEL": str(tiny_model)}
    done = run_cli_here(*(given.get(part, part) for part in command))
    assert done.returncode == 5, done.stderr
    assert "verify" in done.stderr
    assert "Traceback" not in done.stderr
