"""Configuration is refused at the border with what is allowed, and one extraction has one id."""

from __future__ import annotations

import pytest

from pipeline.config import Extraction
from pipeline.errors import UsageError
from pipeline.run_config import RunConfig


@pytest.mark.parametrize("spelling", ["5", "5.0", "10/2"])
def test_one_rate_is_one_extraction_however_it_is_written(spelling: str) -> None:
    assert Extraction(fps=spelling).id == Extraction(fps="5").id


def test_what_decides_rows_changes_the_id() -> None:
    ids = {
        Extraction(**change).id
        for change in (
            {},
            {"fps": "all"},
            {"segment_frames": 16},
            {"min_score": 0.7},
            {"max_faces": 1},
            {"detector_sha256": "ab"},
        )
    }
    assert len(ids) == 6


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("fps", "fast", "'all'"),
        ("fps", "0", "above 0"),
        ("fps", "1/0", "'all'"),
        ("segment_frames", 0, "between 1 and 4096"),
        ("min_score", 1.5, "between 0.0 and 1.0"),
    ],
)
def test_a_wrong_extraction_says_what_is_allowed(field: str, value: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Extraction(**{field: value})  # type: ignore[arg-type]


def test_storage_options_are_neither_shown_nor_saved() -> None:
    config = RunConfig(inputs=("a.mp4",), output="out", storage_options={"secret": "hunter2"})
    assert "hunter2" not in repr(config)
    assert "hunter2" not in str(config.to_json())


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("device", "tpu", "auto, cpu, cuda"),
        ("max_error_rate", 2, "0 to 1"),
        ("decode_actors", 0, "at least 1"),
        ("deadline_s", 0, "above 0"),
        ("stale_after_s", 11, "twice"),
    ],
)
def test_a_wrong_run_says_what_is_allowed(field: str, value: object, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        RunConfig(inputs=("a.mp4",), output="out", **{field: value})  # type: ignore[arg-type]
