"""A dataset with random answers of two models, committed as a run commits it: quick, and as odd as a test wants it."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.storage.store import Store
from ran_model.labels import EXPRESSIONS
from tests.staged_rows import MODEL, OTHER_MODEL, segments_table, table

#: A name of a region, as a model's configuration may have it.
ODD_REGION = """it's "odd" <b>"""
CLASSES = {MODEL: EXPRESSIONS, OTHER_MODEL: EXPRESSIONS[:7]}  # the second lacks contempt
REGIONS = {MODEL: ("whole", "top_left", "nose"), OTHER_MODEL: ("whole", "top_left")}
OTHER_REGIONS = {MODEL: (ODD_REGION, "random_1"), OTHER_MODEL: (ODD_REGION,)}


def hashed_id(number: int) -> str:
    """A source_id as the pipeline makes them: 16 digits of a hash."""
    return hashlib.sha256(str(number).encode()).hexdigest()[:16]


def write_dataset(
    folder: Path,
    faces_of_sources: Sequence[int],
    *,
    only_first: int = 0,
    same: bool = False,
    uri: str = "/films/{}.mp4",
    crops: bytes | None = None,
) -> None:
    """`faces_of_sources[s]` faces in source s, of both models; the last `only_first` sources of the first model alone.

    same: both models give the same answers. uri: of a source, with its number. crops: a picture of every face but
    those of the first source; in the place of the second source's are these bytes.
    """
    store = Store(str(folder))
    Dataset.open_or_create(store, Extraction())
    count = len(faces_of_sources)
    for model in (MODEL, OTHER_MODEL):
        numbers = range(count if model == MODEL else count - only_first)
        run = Run.create(store)
        segments = [f"{hashed_id(number)}0000" for number in numbers]
        files = [stage_table(store, run.run_id, "segments", segments_table(segments, model_id=model))]
        owners = [number for number in numbers for _ in range(faces_of_sources[number])]
        rows = _faces(owners, model, MODEL if same else model, uri, run.run_id)
        files.append(stage_table(store, run.run_id, "faces", rows))
        if crops is not None and model == MODEL:
            number_of = {hashed_id(number): number for number in numbers}
            owners = [number_of[source] for source in rows["source_id"].to_pylist()]  # in the order of the rows
            kept = [index for index, number in enumerate(owners) if number > 0]
            columns = {
                "face_id": rows["face_id"].take(kept),
                "segment_id": rows["segment_id"].take(kept),
                "png": [crops if owners[index] == 1 else _png(index) for index in kept],
            }
            files.append(stage_table(store, run.run_id, "crops", table("crops", len(kept), **columns)))
        committer = Committer(Dataset.open(store), _log(store), run, model)
        committer.add(StagedSet(segment_ids=segments, files=files))
        committer.commit()
        run.finish()


def _log(store: Store) -> CommitLog:
    log = CommitLog(store)
    log.refresh()
    return log


def _faces(owners: Sequence[int], model: str, answers_of: str, uri: str, run_id: str) -> pa.Table:
    random = np.random.default_rng(int(answers_of, 16) % 1000)
    count = len(owners)
    classes, regions, others = CLASSES[answers_of], REGIONS[answers_of], OTHER_REGIONS[answers_of]
    of_source = random.dirichlet(np.ones(len(classes)), max(owners, default=0) + 1)
    of_source = of_source[np.array(owners, int)]  # faces of a source are alike
    probabilities = 0.6 * of_source + 0.4 * random.dirichlet(np.ones(len(classes)), count)
    attention = random.dirichlet(np.ones(len(regions) + len(others)), count)
    place = random.permutation(count)
    return table(
        "faces",
        count,
        face_id=[f"{hashed_id(owner)}-0-{index}-0" for index, owner in enumerate(owners)],
        source_id=[hashed_id(owner) for owner in owners],
        source_uri=[uri.format(owner) for owner in owners],
        segment_id=[f"{hashed_id(owner)}0000" for owner in owners],
        model_id=[model] * count,
        run_id=[run_id] * count,
        frame=np.arange(count),
        timestamp=np.arange(count) / 5,
        expression=[classes[index] for index in probabilities.argmax(axis=1)],
        confidence=probabilities.max(axis=1),
        entropy=-(probabilities * np.log(probabilities)).sum(axis=1),
        attention_other=[dict(zip(others, row[len(regions) :], strict=True)) for row in attention.tolist()],
        **{f"prob_{name}": probabilities[:, index] for index, name in enumerate(classes)},
        **{f"attention_{name}": attention[:, index] for index, name in enumerate(regions)},
    ).take(place)


def _png(index: int) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (32, 32), (index % 256, 90, 160)).save(data, format="PNG")
    return data.getvalue()
