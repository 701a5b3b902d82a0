"""`--crop-on cpu`: regions that decoding actors cut give the rows that regions cut beside the network give."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ran_model.model_files import default_model_dir
from tests.conftest import DEMO_MEDIA, run_cli_here
from tests.datasets import SAME_WEIGHTS_TOLERANCE, assert_equal_datasets, table

pytestmark = pytest.mark.usefixtures("ray_address")

MEDIA = (DEMO_MEDIA / "astronaut.png", DEMO_MEDIA / "portraits.tar")


def _answers(faces: pd.DataFrame) -> pd.DataFrame:
    """What comes from the network, by face."""
    answers = faces.set_index("face_id").sort_index()
    return answers.filter(regex="^(prob_|attention_|self_attention_|confidence|entropy)").dropna(axis=1)


def test_where_regions_are_cut_changes_answers_by_rounding_alone(tmp_path: Path) -> None:
    """In pools of their own; and where one actor does all stages, by `reprocess`, which has the crops."""
    outputs = {name: tmp_path / name for name in ("device", "cpu")}
    for name, output in outputs.items():
        pools = ("--decode-actors", "1", "--ran-actors", "1", "--keep-crops", "--quiet")
        done = run_cli_here("run", *MEDIA, "-o", output, "--crop-on", name, *pools)
        assert done.returncode == 0, done.stderr
    device, cpu = (_answers(table(output, "faces").to_pandas()) for output in outputs.values())
    assert len(device) == 12
    assert_equal_datasets(outputs["device"], outputs["cpu"], without=tuple(device.columns))
    np.testing.assert_allclose(cpu, device, atol=0.02)
    assert np.abs(cpu - device).to_numpy().max() > 1e-5  # bytes were rounded: it was not the other way again

    model = shutil.copytree(default_model_dir(), tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"version": "another"}))
    done = run_cli_here("reprocess", outputs["device"], "--model", model, "--crop-on", "cpu", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    faces = table(outputs["device"], "faces").to_pandas()
    again = _answers(faces[faces["model_id"] == json.loads(done.stdout)["model_id"]])
    np.testing.assert_allclose(again, cpu, atol=SAME_WEIGHTS_TOLERANCE)
