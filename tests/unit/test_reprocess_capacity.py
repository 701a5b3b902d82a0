"""What `reprocess` needs of scratch: room for sources that it opens, none for those whose faces it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.changed import ChangedFiles
from pipeline.config import Extraction
from pipeline.driver import Driver
from pipeline.errors import CapacityError
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.log import CommitLog
from pipeline.ledger.removal import Replacing
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import StagedSet, stage_table
from pipeline.planning import known_sources
from pipeline.prepare import load, model_config, prepare_reprocess
from pipeline.resources import Cluster, share
from pipeline.run_config import RunConfig
from pipeline.segments import plan_table
from pipeline.storage.store import Store
from tests.staged_rows import MODEL, source_id, table

FILMS, FILM_BYTES = 8, 5 << 30
CLUSTER = Cluster(cpus=16, gpus=0, nodes=2)  # of two nodes, whose disks are not looked at


def write_films(output: Path, model: Path, *, kept: range, with_faces: range, aligned_by: int) -> None:
    """Remote videos of two segments each. kept: of which there are crops of this size. with_faces: whose first segment
    has a face; none has another."""
    store = Store(str(output))
    extraction = Extraction()
    plain = dict.fromkeys(schema.SOURCES.names) | {"run_id": "r", "pipeline_version": "0", "fingerprint": "1:1"}
    plain |= {"kind": "video", "size_bytes": FILM_BYTES, "duration_s": 10.0}
    films = [plain | {"source_id": source_id(n), "source_uri": f"s3://films/{n}.mp4"} for n in range(FILMS)]
    sources = pa.Table.from_pylist(films, schema=schema.SOURCES)
    locations = {film["source_id"]: film["source_uri"] for film in films}
    ids = plan_table(sources, locations=locations, extraction=extraction)["segment_id"].to_pylist()
    assert len(ids) == 2 * FILMS
    first = {n: ids[2 * n] for n in with_faces}
    cropped = [one for n, one in first.items() if n in kept]
    template = np.asarray(model_config(load(str(model))[0]).template, np.float32).ravel().tolist()
    common = {"model_id": [MODEL] * len(ids), "status": ["ok"] * len(ids)}
    faces_kept = [int(one in first.values()) for one in ids]
    tables = {
        "sources": sources,
        "segments": table("segments", len(ids), segment_id=ids, faces_kept=faces_kept, **common),
        "faces": table("faces", len(first), segment_id=list(first.values()), model_id=[MODEL] * len(first)),
        "crops": table(
            "crops", len(cropped), segment_id=cropped, template=[template] * len(cropped),
            size=[aligned_by] * len(cropped),
        ),
    }  # fmt: skip
    dataset = Dataset.open_or_create(store, extraction)
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        files = [stage_table(store, run.run_id, name, rows) for name, rows in tables.items() if rows.num_rows]
        committer.add(StagedSet(segment_ids=ids, files=files))
        committer.commit()
        committer.finish()


def check_reprocess(output: Path, model: Path) -> int:
    """As the driver checks before it starts anything. Returns how many segments are planned."""
    config = RunConfig(inputs=(str(output),), output=str(output), model=str(model), scratch_gib=10.0)
    prepared = prepare_reprocess(config, None)
    driver = Driver(config, prepared)
    driver.summary.resources = share(CLUSTER, decode_actors=8)
    log = CommitLog(prepared.dataset.store)
    log.refresh()
    plan = driver._plan(known_sources(prepared.dataset.store, log.state), ChangedFiles(), log, Replacing())
    driver._check_capacity(plan, CLUSTER)
    return plan.todo.num_rows


@pytest.mark.parametrize(
    ("kept", "with_faces", "aligned_by", "wanted"),
    [
        (range(8), range(8), 48, None),
        (range(8), range(3), 48, None),
        (range(2, 8), range(8), 48, None),  # two of them are 10 GiB
        (range(3, 8), range(8), 48, "15.00 GiB"),
        (range(0), range(8), 48, "20.00 GiB"),  # four actors to a node
        (range(0), range(2), 48, None),
        (range(8), range(8), 64, "20.00 GiB"),  # aligned for another model
    ],
)
def test_only_sources_that_are_opened_count(
    kept: range, with_faces: range, aligned_by: int, wanted: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    write_films(tmp_path / "out", tiny_model, kept=kept, with_faces=with_faces, aligned_by=aligned_by)
    if wanted is None:
        assert check_reprocess(tmp_path / "out", tiny_model) == 2 * FILMS
    else:
        with pytest.raises(CapacityError, match=f"need {wanted} of scratch at once, over --scratch-gib 10"):
            check_reprocess(tmp_path / "out", tiny_model)
