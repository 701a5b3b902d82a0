"""A dataset with everything that a report tells of, committed as a run commits it: two videos, one of them in an
archive, pictures in an archive, sources that failed, two models of other classes and regions, crops of some faces."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.storage.store import Store
from ran_model.align import FER_TEMPLATE
from ran_model.labels import EXPRESSIONS
from tests.staged_rows import MODEL, OTHER_MODEL, table

HOSTILE = """/films/"><script>alert(1)</script>&amp;'.mp4"""
ODD_REGION = """it's "odd" <b>"""
CLASSES = {MODEL: EXPRESSIONS, OTHER_MODEL: EXPRESSIONS[:7]}
REGIONS = {MODEL: ("whole", "top_left", "nose"), OTHER_MODEL: ("whole",)}
OTHER_REGIONS = {MODEL: (), OTHER_MODEL: ("random_1", ODD_REGION)}

Rows = dict[str, list[Any]]


def source_id(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]


def windows() -> list[dict[str, Any]]:
    """What was looked at. counts: faces per sampled frame; None: it could not be read. Another `content` than the
    uri: of a file that has changed."""
    long = {"uri": HOSTILE, "kind": "video", "of": "video", "member": None}
    return [
        {**long, "window": 0, "times": np.arange(300) / 5, "counts": [1, 2, 0] * 100},
        {**long, "window": 1, "times": 60 + np.arange(300) / 5, "counts": [0] * 200 + [1] * 100},
        {**long, "window": 2, "times": [], "counts": [], "error": ("error", "timeout", "<b>took too long</b>")},
        {**long, "window": 3, "times": 200 + np.arange(40) / 5, "counts": [1] * 40},
        {
            "uri": "/films/pictures.tar", "kind": "archive", "of": "archive", "member": "a<1>.jpg", "window": 0,
            "times": [None] * 20, "counts": [1] * 15 + [0] * 4 + [None],
            "error": ("partial", "archive_member", "t.jpg: damaged"),
        },
        {
            "uri": "/films/clips.zip", "kind": "video", "of": "archive", "member": "clip.mp4", "window": 0,
            "times": [0.0, 0.3, 0.4], "counts": [1, 0, 1],
        },
        {
            "uri": "/films/gone.mp4", "kind": "video", "of": "video", "member": None, "window": 0,
            "times": [], "counts": [], "error": ("error", "not_found", "it is gone"),
        },
    ]  # fmt: skip


def write(
    folder: Path | str,
    *,
    models: Sequence[str] = (MODEL,),
    crops: bool = True,
    looked: Sequence[dict[str, Any]] | None = None,
    options: dict[str, str] | None = None,
) -> None:
    """looked: windows, other than `windows()`. crops: of every second face of the first model. options: of a store."""
    store = Store(str(folder), options or {})
    Dataset.open_or_create(store, Extraction())
    looked = windows() if looked is None else looked
    for model in models:
        run = Run.create(store)
        run.save_config({"run": {"model": "/models/mine"}})
        files = [
            stage_table(store, run.run_id, "segments", table("segments", len(looked), **_segments(looked, model, run)))
        ]
        faces = _faces(looked, model)
        count = len(faces["face_id"])
        if count:
            files.append(stage_table(store, run.run_id, "faces", table("faces", count, **faces)))
        if model == models[0]:
            kinds = {window["uri"]: window["of"] for window in looked}
            files.append(stage_table(store, run.run_id, "sources", table("sources", len(kinds), **_sources(kinds))))
            kept = list(range(0, count, 2)) if crops else []
            if kept:
                files.append(stage_table(store, run.run_id, "crops", table("crops", len(kept), **_crops(faces, kept))))
        committer = Committer(Dataset.open(store), CommitLog(store), run, model)
        committer.add(StagedSet(segment_ids=[_segment(window) for window in looked], files=files))
        committer.commit()
        run.finish()


def _segment(window: dict[str, Any]) -> str:
    return hashlib.sha256(f"{window['uri']}{window['member']}{window['window']}".encode()).hexdigest()[:20]


def _segments(looked: Sequence[dict[str, Any]], model: str, run: Run) -> Rows:
    errors = [window.get("error", ("ok", None, None)) for window in looked]
    return {
        "segment_id": [_segment(window) for window in looked],
        "source_id": [source_id(window.get("content", window["uri"])) for window in looked],
        "source_uri": [window["uri"] for window in looked],
        "model_id": [model] * len(looked),
        "run_id": [run.run_id] * len(looked),
        "kind": [window["kind"] for window in looked],
        "first_member": [window["member"] for window in looked],
        "frames": [_frames(window) for window in looked],
        "timestamps": [list(window["times"]) for window in looked],
        "face_counts": [window["counts"] for window in looked],
        "faces_kept": [sum(filter(None, window["counts"])) for window in looked],
        "status": [error[0] for error in errors],
        "error_code": [error[1] for error in errors],
        "error_message": [error[2] for error in errors],
    }


def _frames(window: dict[str, Any]) -> list[int]:
    count = len(window["times"])
    return (
        [0] * count
        if window["kind"] == "archive"
        else list(range(window["window"] * 1000, window["window"] * 1000 + count))
    )


def _sources(kinds: dict[str, str]) -> Rows:
    return {
        "source_id": [source_id(uri) for uri in kinds],
        "source_uri": list(kinds),
        "kind": list(kinds.values()),
    }


def _faces(looked: Sequence[dict[str, Any]], model: str) -> Rows:
    random = np.random.default_rng(int(model, 16) % 1000)
    places = [
        (window, position, face)
        for window in looked
        for position, found in enumerate(window["counts"])
        for face in range(found or 0)
    ]
    classes, regions, others = CLASSES[model], REGIONS[model], OTHER_REGIONS[model]
    count = len(places)
    probabilities = random.dirichlet(np.full(len(classes), 0.4), count).astype(np.float32)
    attention = random.dirichlet(np.ones(len(regions) + len(others)), count).astype(np.float32)
    of = [window for window, _, _ in places]
    ordinals = [position if window["kind"] == "archive" else 0 for window, position, _ in places]
    frames = [0 if window["kind"] == "archive" else window["window"] * 1000 + at for window, at, _ in places]
    return {
        "face_id": [
            f"{source_id(window['uri'])}-{ordinal}-{frame}-{face}"
            for (window, _, face), ordinal, frame in zip(places, ordinals, frames, strict=True)
        ],
        "source_id": [source_id(window["uri"]) for window in of],
        "source_uri": [window["uri"] for window in of],
        "member": [
            f"{position}<i>.jpg" if window["kind"] == "archive" else window["member"] for window, position, _ in places
        ],
        "segment_id": [_segment(window) for window in of],
        "model_id": [model] * count,
        "frame": frames,
        "timestamp": [window["times"][position] for window, position, _ in places],
        "face": [face for _, _, face in places],
        **{
            f"landmark_{name}_{axis}": [100 * FER_TEMPLATE[index][place]] * count
            for index, name in enumerate(("left_eye", "right_eye", "nose", "mouth_left", "mouth_right"))
            for place, axis in enumerate("xy")
        },
        "expression": [classes[index] for index in probabilities.argmax(axis=1)] if count else [],
        "confidence": probabilities.max(axis=1) if count else [],
        **({"attention_other": [dict(zip(others, row[len(regions) :], strict=True)) for row in attention.tolist()]}
           if others else {}),
        **{f"prob_{name}": probabilities[:, index] for index, name in enumerate(classes)},
        **{f"attention_{name}": attention[:, index] for index, name in enumerate(regions)},
    }  # fmt: skip


def _crops(faces: Rows, kept: Sequence[int]) -> Rows:
    data = io.BytesIO()
    Image.linear_gradient("L").resize((48, 48)).convert("RGB").save(data, format="PNG")
    return {
        "face_id": [faces["face_id"][index] for index in kept],
        "segment_id": [faces["segment_id"][index] for index in kept],
        "source_id": [faces["source_id"][index] for index in kept],
        "png": [data.getvalue()] * len(kept),
        "template": [[value for point in FER_TEMPLATE for value in point]] * len(kept),
        "size": [48] * len(kept),
    }
