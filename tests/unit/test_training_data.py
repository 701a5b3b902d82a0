"""Votes to label distributions, and faces brought to training exactly as they are served."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from jobs.align_ferplus import align_ferplus, align_training_faces
from pipeline.detect import load_detector
from ran_model.align import FER_TEMPLATE, align_faces
from ran_model.data import FerPlus, vote_distribution

ASTRONAUT = Path(__file__).parents[2] / "examples" / "media" / "astronaut.png"


def grey_face() -> np.ndarray:
    picture = cv2.imread(str(ASTRONAUT), cv2.IMREAD_GRAYSCALE)[40:190, 150:300]
    return cv2.resize(picture, (48, 48), interpolation=cv2.INTER_AREA)


def test_votes_become_distributions_without_outliers_and_unknowns() -> None:
    votes = np.array([[4, 0, 0, 1, 5, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 1, 1, 2, 0], [0, 3, 0, 0, 0, 0, 0, 0, 7, 0]])
    shares = vote_distribution(votes)
    np.testing.assert_allclose(shares[0], [4 / 9, 0, 0, 0, 5 / 9, 0, 0, 0])
    np.testing.assert_allclose(shares[1], 0)
    np.testing.assert_allclose(shares[2], [0, 1, 0, 0, 0, 0, 0, 0])


def test_training_sees_what_serving_sees() -> None:
    picture = cv2.cvtColor(grey_face(), cv2.COLOR_GRAY2RGB)
    detector = load_detector(min_face_px=8, min_score=0.5)
    trained, is_found = align_training_faces([picture, np.zeros_like(picture)], detector, 96)
    landmarks = detector.detect([picture])[0].landmarks_N52
    served = align_faces(picture, landmarks, np.array(FER_TEMPLATE, np.float32), 96)[0]
    np.testing.assert_array_equal(trained[0], served[..., 0])
    assert is_found.tolist() == [True, False]
    assert trained[1].max() == 0  # no face: the whole picture


@pytest.fixture
def table(tmp_path: Path) -> Path:
    _, encoded = cv2.imencode(".webp", grey_face(), [cv2.IMWRITE_WEBP_QUALITY, 101])
    splits = ["train", "train", None, "test", "test"]
    happy, angry = [0, 9, 0, 0, 0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 8, 2, 0, 0, 0, 0]
    pq.write_table(
        pa.table(
            {
                "row": [10, 11, 12, 13, 14],
                "usage": ["Training", "PublicTest", "Training", "PrivateTest", "PrivateTest"],
                "image": [encoded.tobytes()] * 5,
                "votes": [happy, angry, happy, [1] * 10, angry],
                "ran_split": splits,
                "ran_label": [1, 4, None, 3, 4],
                "occlusion_label": pa.array([None, None, None, None, 5], pa.int64()),
                "pose30_label": pa.array([None] * 5, pa.int64()),
                "pose45_label": pa.array([None, None, None, 2, None], pa.int64()),
            }
        ),
        tmp_path / "ferplus.parquet",
    )
    return tmp_path / "ferplus.parquet"


def test_lists_keep_their_own_labels_and_parts(table: Path, tmp_path: Path) -> None:
    align_ferplus(table, tmp_path / "aligned.npz", threads=1)
    data = FerPlus(table, tmp_path / "aligned.npz")
    assert data.found_fraction == 1
    assert data.train().labels_B.tolist() == [1]
    assert data.validation().labels_B.tolist() == [4]
    assert data.test().labels_B.tolist() == [3, 4]
    assert data.test("occlusion").labels_B.tolist() == [5]
    assert data.test("pose>45").labels_B.tolist() == [2]
    assert len(data.test("pose>30")) == 0
    assert data.train().faces_BCSS.shape == (1, 1, 96, 96)
    torch.testing.assert_close(data.validation().targets_BK[0, 4:6], torch.tensor([0.8, 0.2]))
    assert data.test().targets_BK[0].argmax() == 3  # no vote left: the list's own label
