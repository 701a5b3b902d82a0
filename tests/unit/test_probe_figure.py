"""The figure says what the numbers say: bars as long as the accuracies, cells as dark as the weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.drawing import weight_colour
from jobs.probe_figure import (
    BARS_LEFT,
    BARS_PX,
    COLOURS,
    FACE_LEFT,
    FACE_PX,
    WIDTH,
    bar_middle,
    draw_probe,
    heat_cell,
    row_top,
    scale_end,
)
from ran_model.config import FIXED_REGIONS
from ran_model.occlusion_probe import CoverResult
from ran_model.regions import STRATEGIES

ACCURACIES = {"nothing": (1.0, 0.9), "eyes": (0.5, 0.25), "mouth": (0.1, 0.0)}
WEIGHTS = ((0.30, 0.10, 0.15, 0.20, 0.15, 0.10), (0.10, 0.05, 0.05, 0.60, 0.10, 0.10), (0.0, 0.5, 0.5, 0.0, 0.0, 0.0))
EXAMPLES = {name: np.full((48, 48), shade, np.uint8) for name, shade in zip(ACCURACIES, (40, 90, 200), strict=True)}


def _results(regions: tuple[str, ...] = FIXED_REGIONS) -> dict[str, list[CoverResult]]:
    ran, single = [], []
    for (name, (of_ran, of_single)), weights in zip(ACCURACIES.items(), WEIGHTS, strict=True):
        attention = weights + (0.0,) * (len(regions) - 6)
        ran.append(CoverResult(cover=name, n=1234, accuracy=of_ran, attention_R=attention, regions=regions))
        single.append(CoverResult(cover=name, n=1234, accuracy=of_single, attention_R=(1.0,), regions=("whole",)))
    return {"RAN": ran, "single pass": single}


def _drawn(results: dict[str, list[CoverResult]], folder: Path) -> NDArray[np.uint8]:
    draw_probe(results, EXAMPLES, folder / "probe.png")
    with Image.open(folder / "probe.png") as picture:
        assert picture.format == "PNG"
        return np.asarray(picture.convert("RGB"))


def test_bars_are_as_long_as_the_accuracies(tmp_path: Path) -> None:
    pixels = _drawn(_results(), tmp_path)
    assert pixels.shape[1] == WIDTH
    for index, accuracies in enumerate(ACCURACIES.values()):
        rows = pixels[row_top(index) + 2 : row_top(index + 1), BARS_LEFT : BARS_LEFT + BARS_PX]
        for colour, accuracy in zip(COLOURS.values(), accuracies, strict=True):
            lengths = (rows == colour).all(axis=2).sum(axis=1)
            assert lengths.max() == pytest.approx(accuracy * BARS_PX, abs=1)


def test_cells_have_the_colour_of_their_weight(tmp_path: Path) -> None:
    pixels = _drawn(_results(), tmp_path)
    for index, weights in enumerate(WEIGHTS):
        for region, weight in enumerate(weights):
            left, top, _, _ = heat_cell(index, region, len(weights))
            assert tuple(pixels[round(top) + 5, round(left) + 5]) == weight_colour(weight / 0.6), (index, region)


def test_the_scale_ends_at_the_next_tenth() -> None:
    ran = _results()["RAN"]
    assert scale_end(ran) == pytest.approx(0.6)
    assert scale_end(ran[:1]) == pytest.approx(0.3)
    assert scale_end([replace(ran[0], attention_R=(0.38, 0.62))]) == pytest.approx(0.7)
    assert scale_end([replace(ran[0], attention_R=(1.0,))]) == pytest.approx(1.0)


def test_each_row_shows_its_own_example(tmp_path: Path) -> None:
    pixels = _drawn(_results(), tmp_path)
    for index, face in enumerate(EXAMPLES.values()):
        shown = pixels[row_top(index) + 30 : row_top(index) + 70, FACE_LEFT + 5 : FACE_LEFT + FACE_PX - 5]
        assert (shown == face[0, 0]).all()


def test_changes_are_measured_from_the_same_networks_uncovered_faces(tmp_path: Path) -> None:
    results = _results()
    before = _drawn(results, tmp_path)
    results["single pass"][0] = replace(results["single pass"][0], accuracy=0.7)
    changed = (_drawn(results, tmp_path) != before).any(axis=2)
    for index in (1, 2):
        upper, lower = (bar_middle(index, place) for place in (0, 1))
        assert not changed[upper - 10 : upper + 10].any()
        assert changed[lower - 10 : lower + 10, BARS_LEFT + BARS_PX + 60 : BARS_LEFT + BARS_PX + 110].any()
        assert not changed[lower - 10 : lower + 10, : BARS_LEFT + BARS_PX + 58].any()
    results["RAN"][0] = replace(results["RAN"][0], attention_R=(0.2, 0.2, *WEIGHTS[0][2:]))
    changed = (_drawn(results, tmp_path) != before).any(axis=2)
    left, top, right, bottom = map(round, heat_cell(2, 0, 6))
    assert changed[top:bottom, left:right].any()
    left, top, right, bottom = map(round, heat_cell(2, 2, 6))
    assert not changed[top:bottom, left:right].any()


def test_nothing_runs_over_the_edge(tmp_path: Path) -> None:
    for regions in (FIXED_REGIONS, STRATEGIES["affectnet"]):
        pixels = _drawn(_results(regions), tmp_path)
        border = np.concatenate([pixels[:8].reshape(-1, 3), pixels[-8:].reshape(-1, 3), pixels[:, -20:].reshape(-1, 3)])
        assert (border == pixels[0, 0]).all()


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    path, results = tmp_path / "probe.png", _results()
    with pytest.raises(ValueError, match="no results of single pass"):
        draw_probe({"RAN": results["RAN"]}, EXAMPLES, path)
    with pytest.raises(ValueError, match="no example face for mouth"):
        draw_probe(results, {name: EXAMPLES[name] for name in ("nothing", "eyes")}, path)
    with pytest.raises(ValueError, match="differ in covers or in faces"):
        draw_probe({**results, "single pass": results["single pass"][:2]}, EXAMPLES, path)
    with pytest.raises(ValueError, match="differ in covers or in faces"):
        draw_probe({**results, "RAN": [replace(one, n=5) for one in results["RAN"]]}, EXAMPLES, path)
    with pytest.raises(ValueError, match="the first cover is 'eyes'"):
        draw_probe({name: rows[1:] for name, rows in results.items()}, EXAMPLES, path)
    assert not path.exists()
