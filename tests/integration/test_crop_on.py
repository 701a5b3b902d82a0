"""`--crop-on cpu`: regions that decoding actors cut give the rows that regions cut beside the network give."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.conftest import DEMO_MEDIA, run_cli_here
from tests.datasets import assert_equal_datasets, table

pytestmark = pytest.mark.usefixtures("ray_address")

TWO_POOLS = ("--decode-actors", "1", "--ran-actors", "1", "--keep-crops", "--quiet")


def _answers(output: Path) -> tuple[list[str], np.ndarray]:
    """Columns that come from the network, and what they say of each face."""
    faces = table(output, "faces").to_pandas()
    answers = faces.filter(regex="^(prob_|attention_|self_attention_|confidence|entropy)").dropna(axis=1)
    return list(answers.columns), answers.to_numpy(np.float64)


def test_where_regions_are_cut_changes_answers_by_rounding_alone(tmp_path: Path) -> None:
    media = (DEMO_MEDIA / "astronaut.png", DEMO_MEDIA / "portraits.tar")
    outputs = {name: tmp_path / name for name in ("device", "cpu", "cpu in one pool")}
    for name, output in outputs.items():
        pools = ("--keep-crops", "--quiet") if name == "cpu in one pool" else TWO_POOLS
        done = run_cli_here("run", *media, "-o", output, "--crop-on", name.split()[0], *pools)
        assert done.returncode == 0, done.stderr
    columns, expected = _answers(outputs["device"])
    assert len(expected) == 12
    for name in ("cpu", "cpu in one pool"):
        assert_equal_datasets(outputs["device"], outputs[name], without=tuple(columns))
        _, found = _answers(outputs[name])
        np.testing.assert_allclose(found, expected, atol=0.02)
        assert np.abs(found - expected).max() > 1e-5  # bytes were rounded: it was not the other way again


def test_reprocess_cuts_where_it_is_told(tiny_model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    done = run_cli_here("run", DEMO_MEDIA / "portraits.tar", "-o", output, "--model", tiny_model, *TWO_POOLS)
    assert done.returncode == 0, done.stderr
    options = ("--model", "default", "--decode-actors", "1", "--ran-actors", "1", "--quiet", "--crop-on", "cpu")
    done = run_cli_here("reprocess", output, *options)
    assert done.returncode == 0, done.stderr
    fresh = tmp_path / "fresh"
    done = run_cli_here("run", DEMO_MEDIA / "portraits.tar", "-o", fresh, "--crop-on", "cpu", *TWO_POOLS)
    assert done.returncode == 0, done.stderr
    new = table(output, "faces").to_pandas().query("model_id == @fresh_id", local_dict={"fresh_id": _model_id(fresh)})
    expected = table(fresh, "faces").to_pandas()
    assert len(new) == len(expected) == 11
    columns = [
        name for name in expected.columns if name.startswith(("prob_", "attention_")) and expected[name].notna().all()
    ]
    np.testing.assert_allclose(new[columns].to_numpy(float), expected[columns].to_numpy(float), atol=1e-4)


def _model_id(output: Path) -> str:
    (model_id,) = set(table(output, "faces")["model_id"].to_pylist())
    return str(model_id)
