"""`reprocess`: another model over the same faces, from kept crops or by decoding alone, beside the old rows."""

from __future__ import annotations

import dataclasses
import json
import shutil
import tarfile
import unicodedata
from pathlib import Path
from typing import Any

import pytest
import torch

from ran_model.config import ModelConfig
from ran_model.network import RegionAttentionNetwork
from ran_model.pretrained import save_model
from tests.conftest import DEMO_MEDIA, run_cli_here
from tests.datasets import RUN_COLUMNS, SAME_WEIGHTS_TOLERANCE, table

pytestmark = pytest.mark.usefixtures("ray_address")

MODEL_COLUMNS = {"model_id", *RUN_COLUMNS}
RUN = ("--segment-frames", "8", "--decode-actors", "1", "--quiet")


def _model(folder: Path, seed: int = 7, **changes: object) -> Path:
    torch.manual_seed(seed)
    config = dataclasses.replace(ModelConfig(name="tiny", input_size=32, aligned_size=48), **changes)
    save_model(folder, config, RegionAttentionNetwork(config), "# A random model for tests\n")
    return folder


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a decomposed name, an archive of pictures, one of a video, a picture, and two that fail."""
    folder = tmp_path_factory.mktemp("media")
    shutil.copy(DEMO_MEDIA / "portrait.mp4", folder / unicodedata.normalize("NFD", "Porträt.mp4"))
    shutil.copy(DEMO_MEDIA / "portraits.tar", folder)
    shutil.copy(DEMO_MEDIA / "astronaut.png", folder)
    with tarfile.open(folder / "videos.tar", "w") as archive:
        archive.add(DEMO_MEDIA / "portrait.mp4", "deep/portrait.mp4")
    (folder / "broken.mp4").write_bytes((DEMO_MEDIA / "portrait.mp4").read_bytes()[:5000])
    (folder / "empty.png").write_bytes(b"")
    return folder


@pytest.fixture(scope="module")
def dataset(media: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scored by a first model, with crops."""
    folder = tmp_path_factory.mktemp("base")
    model = _model(folder / "model")
    done = run_cli_here("run", media, "-o", folder / "out", "--model", model, "--keep-crops", *RUN)
    assert done.returncode == 3, done.stderr
    return folder / "out"


@pytest.fixture
def output(dataset: Path, tmp_path: Path) -> Path:
    shutil.copytree(dataset, tmp_path / "out")
    return tmp_path / "out"


def _reprocess(output: Path, model: Path, *options: str) -> dict[str, Any]:
    one_actor = ("--decode-actors", "1", "--quiet")
    done = run_cli_here("reprocess", output, "--model", model, "--json", *one_actor, *options)
    assert done.returncode in (0, 3), done.stderr
    return json.loads(done.stdout)


def _rows(output: Path, name: str, model_id: str) -> list[dict[str, object]]:
    rows = [row for row in table(output, name).to_pylist() if row["model_id"] == model_id]
    return [{key: value for key, value in row.items() if key not in MODEL_COLUMNS} for row in rows]


def _assert_same(left: list[dict[str, object]], right: list[dict[str, object]]) -> None:
    assert len(left) == len(right) > 0
    for one, other in zip(left, right, strict=True):
        for key, value in one.items():
            if isinstance(value, float):
                assert other[key] == pytest.approx(value, rel=0, abs=SAME_WEIGHTS_TOLERANCE), key
            else:
                assert other[key] == value, key


def _contents(output: Path) -> dict[Path, bytes]:
    tables = ("faces", "segments", "sources", "crops")
    return {file: file.read_bytes() for name in tables for file in (output / name).rglob("*.parquet")}


def _models(output: Path) -> list[str]:
    return list(dict.fromkeys(table(output, "segments")["model_id"].to_pylist()))


def test_kept_crops_are_enough_when_the_sources_are_gone(output: Path, media: Path, tmp_path: Path) -> None:
    """The same weights under another version give the stored answers: a few while the sources are there and need not be
    decoded, the rest once they can't be, none by the same command once more. What was there stays as it was."""
    (old,) = _models(output)
    before = _contents(output)
    model = _model(tmp_path / "new", version="2")
    first = _reprocess(output, model, "--limit", "3")
    moved = media.rename(tmp_path / "moved")
    try:
        second, third = (_reprocess(output, model) for _ in range(2))
    finally:
        moved.rename(media)
    new = str(second["model_id"])
    assert new != old
    assert first["decode_s"] == second["decode_s"] == 0
    assert "not_found" not in {**first["failures"], **second["failures"]}
    assert (first["segments_done"], second["segments_already_done"]) == (3, 3)
    assert (third["segments_done"], third["segments_already_done"]) == (0, 3 + second["segments_done"])
    _assert_same(_rows(output, "faces", old), _rows(output, "faces", new))
    _assert_same(_rows(output, "segments", old), _rows(output, "segments", new))
    assert {file: file.read_bytes() for file in before} == before
    assert run_cli_here("verify", output).returncode == 0
    shown = run_cli_here("query", output, "SELECT DISTINCT model_id FROM faces", "--format", "csv")
    assert shown.stdout.split() == ["model_id", new]


def test_without_crops_decoding_again_gives_the_stored_answers(media: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run_cli_here("run", media, "-o", output, "--model", _model(tmp_path / "old"), *RUN)
    assert done.returncode == 3, done.stderr
    (old,) = _models(output)
    before = _contents(output)
    answer = _reprocess(output, _model(tmp_path / "new", version="2"))
    new = str(answer["model_id"])
    assert new != old
    assert answer["decode_s"] > 0
    _assert_same(_rows(output, "faces", old), _rows(output, "faces", new))
    _assert_same(_rows(output, "segments", old), _rows(output, "segments", new))
    assert {file: file.read_bytes() for file in before} == before
    assert run_cli_here("verify", output).returncode == 0
    again = _reprocess(output, tmp_path / "new")
    assert (again["segments_done"], again["segments_already_done"]) == (0, answer["segments_done"])


def test_another_alignment_decodes_again_and_keeps_frames_and_boxes(output: Path, tmp_path: Path) -> None:
    (old,) = _models(output)
    answer = _reprocess(output, _model(tmp_path / "new", aligned_size=64, regions=("whole", "left_eye", "nose")))
    new = str(answer["model_id"])
    kept = ("face_id", "segment_id", "timestamp", "FaceRectX", "landmark_nose_x", "Yaw", "FaceScore")
    before, after = ([{k: row[k] for k in kept} for row in _rows(output, "faces", model)] for model in (old, new))
    assert before == after
    assert all(row["attention_nose"] is not None for row in _rows(output, "faces", new))
    counts = [[row["face_counts"] for row in _rows(output, "segments", model)] for model in (old, new)]
    assert counts[0] == counts[1]


def test_what_one_model_could_not_read_another_takes_from_the_first_and_the_same_command_heals(tmp_path: Path) -> None:
    """Sources were away while a second model needed them; a third needs only the crops."""
    media, away, output = tmp_path / "media", tmp_path / "away", tmp_path / "out"
    media.mkdir()
    shutil.copy(DEMO_MEDIA / "astronaut.png", media)
    first = run_cli_here("run", media, "-o", output, "--model", _model(tmp_path / "a"), "--keep-crops", "--json", *RUN)
    assert first.returncode == 0, first.stderr
    faces = _rows(output, "faces", str(json.loads(first.stdout)["model_id"]))
    assert faces
    larger, third = _model(tmp_path / "b", aligned_size=64), _model(tmp_path / "c", seed=8)
    media.rename(away)
    failed = _reprocess(output, larger)
    assert failed["failures"] == {"not_found": 1}
    assert "1 segment that model" in failed["notes"][-1]
    assert "could not be read again" in failed["notes"][-1]
    assert _reprocess(output, third)["faces"] == len(faces)
    away.rename(media)
    healed = _reprocess(output, larger)
    assert (healed["segments_done"], healed["faces"], healed["failures"]) == (1, len(faces), {})
    assert not any("could not be read again" in note for note in healed["notes"])
    assert len(_rows(output, "faces", str(healed["model_id"]))) == len(faces)
    assert _reprocess(output, larger)["segments_done"] == 0
    assert run_cli_here("verify", output).returncode == 0


def test_what_can_t_be_reprocessed_is_said(output: Path, tmp_path: Path) -> None:
    (old,) = _models(output)
    same = run_cli_here("reprocess", output, "--model", _model(tmp_path / "same"))
    assert same.returncode == 2
    assert f"{old}" in same.stderr
    unknown = run_cli_here("reprocess", output, "--model", _model(tmp_path / "new", seed=8), "--base", "feedfeedfeed")
    assert unknown.returncode == 2
    assert f"models are: {old}" in unknown.stderr
