"""Whole files with rows that the log does not know, misses or has once: `verify` names them, `--repair` mends them.

They go into the log past the Committer, which lets none of this through.
"""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline import schema
from pipeline.config import Extraction
from pipeline.ledger.commit import Committer
from pipeline.ledger.dataset import Dataset
from pipeline.ledger.entry import Entry
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import publish_entry
from pipeline.ledger.repair import repair
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import stage_table, to_commit
from pipeline.ledger.state import LogState
from pipeline.ledger.verify import Verification, verify
from pipeline.storage.store import Store
from tests.faulty_store import memory_url
from tests.staged_rows import (
    MODEL,
    OTHER_MODEL,
    crops,
    faces,
    segment_id,
    segments_table,
    source_id,
    sources,
    stage,
    table,
)

SOUND = [segment_id(number) for number in range(5)]
EMPTY, OTHER, CROWDED = (segment_id(number) for number in (12, 15, 11))  # without a face, likewise, with two of them


@pytest.fixture
def store() -> Store:
    """A dataset with five sound segments, their crops and a source."""
    store = Store(memory_url())
    dataset = Dataset.open_or_create(store, Extraction())
    with Run.create(store) as run:
        committer = Committer(dataset, CommitLog(store), run, MODEL)
        committer.add(stage(store, run.run_id, range(5), keep_crops=True, source_numbers=[0]))
        committer.commit()
        committer.finish()
    assert verify(store).is_sound
    return store


def append(
    store: Store, tables: dict[str, pa.Table], *, is_public: bool = True, model_id: str = MODEL, **names: list[str]
) -> None:
    """Commits files with these rows; names: the ids that the entry says are in them."""
    files = [
        to_commit(stage_table(store, "by-hand", name, rows), run_id="by-hand", model_id=model_id)
        for name, rows in tables.items()
    ]
    log = CommitLog(store)
    entry = log.append(lambda _: Entry(run_id="by-hand", model_id=model_id, add=files, **names))
    assert entry is not None
    if is_public:
        publish_entry(store, log, entry)


def found(verification: Verification) -> set[tuple[str, str]]:
    return {(finding.kind, finding.path) for finding in verification.findings}


@pytest.mark.parametrize(
    ("rows", "kind"),
    [([EMPTY], "missing_rows"), ([EMPTY, OTHER, OTHER], "doubled_rows"), ([EMPTY, OTHER, SOUND[0]], "doubled_rows")],
    ids=["one is missing", "one twice", "one of another file"],
)
def test_a_segment_of_the_log_without_a_row_or_with_two(store: Store, rows: list[str], kind: str) -> None:
    append(store, {"segments": segments_table(rows)}, segments=[EMPTY, OTHER])
    verification = verify(store)
    assert found(verification) == {(kind, f"segments/{MODEL}")}
    wrong = SOUND[0] if SOUND[0] in rows else OTHER
    assert verification.lost == {MODEL: [wrong]}
    assert_repaired(store, gone={wrong})


def test_a_row_of_a_segment_that_is_not_in_the_log(store: Store) -> None:
    append(store, {"segments": segments_table([EMPTY, OTHER])}, segments=[EMPTY])
    verification = verify(store)
    assert found(verification) == {("foreign_rows", f"segments/{MODEL}")}
    assert OTHER in verification.findings[0].problem
    assert_repaired(store, gone={OTHER})


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        (faces([CROWDED]).slice(1), {"missing_rows"}),
        (faces([CROWDED]).slice(0, 0), {"missing_rows"}),
        (pa.concat_tables([faces([CROWDED]), faces([CROWDED]).slice(1)]), {"missing_rows", "doubled_rows"}),
        (faces([CROWDED, segment_id(1)]), {"missing_rows", "doubled_rows"}),
    ],
    ids=["one is missing", "all are missing", "one twice", "one of another file"],
)
def test_a_segment_with_fewer_or_more_faces_than_its_row_says(store: Store, rows: pa.Table, kinds: set[str]) -> None:
    append(store, {"faces": rows, "segments": segments_table([CROWDED])}, segments=[CROWDED])
    verification = verify(store)
    assert found(verification) == {(kind, f"faces/{MODEL}") for kind in kinds}
    wrong = segment_id(1) if segment_id(1) in rows["segment_id"].to_pylist() else CROWDED
    assert verification.lost == {MODEL: [wrong]}
    assert_repaired(store, gone={wrong})


@pytest.mark.parametrize(
    ("numbers", "kind"), [([7], "missing_rows"), ([7, 8, 8], "doubled_rows")], ids=["one is missing", "one twice"]
)
def test_a_source_of_the_log_without_a_row_or_with_two(store: Store, numbers: list[int], kind: str) -> None:
    append(store, {"sources": sources(numbers)}, sources=[source_id(7), source_id(8)])
    verification = verify(store)
    assert found(verification) == {(kind, "sources")}
    assert verification.lost_sources == [source_id(8)]
    assert_repaired(store, gone=set())


@pytest.mark.parametrize(
    "kept",
    [
        crops([CROWDED]).slice(1),
        pa.concat_tables([crops([CROWDED]), crops([CROWDED]).slice(1)]),
        crops([CROWDED, segment_id(13)]),
    ],
    ids=["one is missing", "one twice", "one of no segment"],
)
def test_kept_crops_are_those_of_the_segments_in_the_log(store: Store, kept: pa.Table) -> None:
    tables = {"faces": faces([CROWDED]), "segments": segments_table([CROWDED]), "crops": kept}
    append(store, tables, segments=[CROWDED], crops=[CROWDED])
    verification = verify(store)
    assert found(verification) == {("missing_rows", "crops")}
    assert_repaired(store, gone=set())


def test_a_committed_file_that_is_not_public_yet_is_no_loss(store: Store) -> None:
    append(store, {"segments": segments_table([EMPTY])}, is_public=False, segments=[EMPTY])
    verification = verify(store)
    ((kind, path),) = found(verification)
    assert kind == "unpublished_file"
    assert path.startswith(f"segments/{MODEL}/")
    assert not verification.lost
    assert_repaired(store, gone=set())
    assert path in store.list("segments")


def assert_repaired(store: Store, *, gone: set[str]) -> None:
    """`--repair` takes out what is wrong, to be made again, and leaves the rest."""
    before = committed(store)
    report = repair(store)
    assert report.after.is_sound, report.after.findings
    assert committed(store) == before - gone
    assert report.lost == len(before & gone)
    assert not {path for path in store.list("") if path.startswith("_ran/staging")}
    for name in schema.TABLES:
        assert set(store.list(name)) == {file.path for file in state(store).files(name)}


def committed(store: Store) -> set[str]:
    return set(state(store).committed(MODEL))


def state(store: Store) -> LogState:
    log = CommitLog(store)
    log.refresh()
    return log.state


@pytest.mark.parametrize(
    ("models", "kept", "is_sound"),
    [
        ([("ok", 2), ("ok", 3)], 2, True),
        ([("ok", 2), ("ok", 1)], 2, True),
        ([("ok", 2), ("ok", 3)], 1, False),
        ([("ok", 2), ("partial", 1)], 1, True),
        ([("ok", 2), ("partial", 1)], 0, False),
        ([("partial", 1), ("partial", 2)], 2, True),
        ([("partial", 1), ("partial", 2)], 1, True),
        ([("partial", 1), ("partial", 3)], 2, False),
        ([("partial", 2), ("error", 0)], 2, True),
        ([("ok", 2), ("error", 0)], 0, False),
    ],
)
def test_kept_crops_are_all_of_one_model(
    store: Store, models: list[tuple[str, int]], kept: int, is_sound: bool
) -> None:
    """Who tries a segment again, for another model, may find more faces, or fewer."""
    number = segment_id(20)
    for model_id, (status, count) in zip((MODEL, OTHER_MODEL), models, strict=True):
        of_faces = {"face_id": [f"f{one}" for one in range(count)], "segment_id": [number] * count}
        tables = {
            "segments": table("segments", 1, segment_id=[number], status=[status], faces_kept=[count]),
            "faces": table("faces", count, **of_faces, model_id=[model_id] * count),
        }
        append(store, tables, model_id=model_id, segments=[number])
    crops = table("crops", kept, face_id=[f"f{one}" for one in range(kept)], segment_id=[number] * kept)
    append(store, {"crops": crops}, model_id="", crops=[number])
    assert verify(store).is_sound == is_sound
    assert verify(store).lost_crops == ([] if is_sound else [number])
