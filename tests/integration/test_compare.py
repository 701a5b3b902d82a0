"""`compare` on a dataset that two real runs have made, with two models whose weights differ."""

from __future__ import annotations

import base64
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from tests.conftest import DEMO_MEDIA, run_cli_here, save_tiny_model
from tests.datasets import table

FOREIGN = "<img src=x onerror=alert(1)> & 'co'.mp4"


@pytest.fixture(scope="module")
def dataset(tiny_model: Path, ray_address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video with a name that is no name, a picture and a tar; both models, crops kept. The second lacks the tar."""
    folder = tmp_path_factory.mktemp("compare")
    media, output = folder / "media", folder / "out"
    media.mkdir()
    shutil.copy(DEMO_MEDIA / "portrait.mp4", media / FOREIGN)
    shutil.copy(DEMO_MEDIA / "astronaut.png", media)
    shutil.copy(DEMO_MEDIA / "portraits.tar", media)
    other = save_tiny_model(folder / "other", seed=8)
    both = ["-o", output, "--fps", "3", "--segment-frames", "8", "--decode-actors", "1"]
    done = run_cli_here("run", media, *both, "--model", tiny_model, "--keep-crops")
    assert done.returncode == 0, done.stderr
    (media / "portraits.tar").unlink()
    done = run_cli_here("run", media, *both, "--model", other)
    assert done.returncode == 0, done.stderr
    return output


@pytest.fixture(scope="module")
def models(dataset: Path) -> list[str]:
    answer = json.loads(run_cli_here("inspect", dataset, "--json").stdout)
    return [model["model_id"] for model in answer["models"]]


def _joined(dataset: Path, models: list[str]) -> pd.DataFrame:
    rows = table(dataset, "faces").to_pandas()
    a, b = (rows[rows["model_id"] == model] for model in models)
    return a.merge(b, on="face_id", suffixes=("_a", "_b"))


def _compare(*arguments: str | Path) -> Any:
    done = run_cli_here("compare", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_json_page_and_labels(dataset: Path, models: list[str], tmp_path: Path) -> None:
    joined = _joined(dataset, models)
    assert len(joined) > 15
    labels = tmp_path / "labels.csv"
    labelled = joined.iloc[::2]
    labels.write_text(
        "face_id,expression\n" + "".join(f"{face},sad\n" for face in labelled["face_id"]) + "x-0-0-0,joy\n"
    )
    page = tmp_path / "compare.html"
    answer = _compare(dataset, *models, "--labels", labels, "--to", page, "--faces", "5")
    same = joined["expression_a"] == joined["expression_b"]
    assert (answer["faces"], answer["sources"]) == (len(joined), 2)
    assert answer["faces_only_a"] == table(dataset, "faces").num_rows - 2 * len(joined) > 0
    assert answer["faces_only_b"] == 0
    assert answer["agreement"]["value"] == pytest.approx(same.mean())
    assert sum(map(sum, answer["flips"])) == len(joined)
    shifts = {shift["column"]: shift["shift"] for shift in answer["shifts"]}
    for column in ("prob_sadness", "attention_whole", "attention_center_85"):
        expected = (joined[f"{column}_b"].astype(float) - joined[f"{column}_a"]).mean()
        assert shifts[column]["value"] == pytest.approx(expected, abs=1e-8)
        assert shifts[column]["low"] <= expected <= shifts[column]["high"]
        assert abs(expected) > 1e-6
    p = [joined[[name for name in joined if name.startswith("prob_") and name.endswith(end)]] for end in ("_a", "_b")]
    distance = abs(p[0].to_numpy() - p[1].to_numpy()).sum(axis=1) / 2
    assert answer["changed_faces"][0]["total_variation"] == pytest.approx(distance.max(), abs=1e-6)
    assert len(answer["changed_faces"]) == 5
    assert all(face["has_crop"] for face in answer["changed_faces"])
    found = answer["labelled"]
    assert (found["faces"], found["labels_unknown"], found["unlabelled"]) == (
        len(labelled), 1, len(joined) - len(labelled),
    )  # fmt: skip
    for model in "ab":
        right = (labelled[f"expression_{model}"] == "sadness").mean()
        assert found[f"accuracy_{model}"]["value"] == pytest.approx(right)
    content = page.read_text(encoding="utf-8")
    assert "&lt;img src=x onerror=alert(1)&gt; &amp; &#x27;co&#x27;.mp4" in content
    assert "<img src=x" not in content
    pictures = content.split('src="data:image/jpeg;base64,')[1:]
    assert len(pictures) == 5
    assert all(base64.b64decode(picture.partition('"')[0]).startswith(b"\xff\xd8") for picture in pictures)


def test_text_for_people(dataset: Path, models: list[str]) -> None:
    done = run_cli_here("compare", dataset, models[0][:6], models[1][:6], "--faces", "3")
    assert done.returncode == 0, done.stderr
    assert "same expression: " in done.stdout
    assert "attention_whole" in done.stdout
    assert "they come out too narrow" in done.stdout
    assert done.stdout.count(FOREIGN) >= 3


def test_wrong_models_are_usage_errors_that_list_the_models(dataset: Path, models: list[str]) -> None:
    for arguments in (("nothing", models[0]), (models[0], models[0][:8])):
        done = run_cli_here("compare", dataset, *arguments)
        assert done.returncode == 2
        assert all(model in done.stderr for model in models)


def test_a_dataset_on_s3_gives_the_same(dataset: Path, models: list[str], s3_server: str) -> None:
    import s3fs

    bucket = s3fs.S3FileSystem(key="test", secret="hunter2secret", endpoint_url=s3_server)
    bucket.mkdir("compared")
    bucket.put(str(dataset), "compared/out", recursive=True)
    options = [f"--storage-option={pair}" for pair in (f"endpoint={s3_server}", "key=test", "secret=hunter2secret")]
    remote = _compare("s3://compared/out", *models, *options, "--to", "s3://compared/page.html")
    local = _compare(dataset, *models)
    assert remote == local
    page = bucket.cat_file("compared/page.html").decode()
    assert page.startswith("<!DOCTYPE html>")
    assert "s3://compared/out" in page
    assert "hunter2secret" not in page
