"""Rows leave the dataset: files that hold some of them are replaced by files with the rest, in one entry of the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.live import read_live_columns, sound_rows
from pipeline.ledger.log import CommitLog
from pipeline.ledger.publish import commit_entry
from pipeline.ledger.runs import Run
from pipeline.ledger.staging import ERRORS_SUFFIX, stage_table, to_commit
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store


@dataclass(kw_only=True)
class Replacement:
    """remove: paths of files that had some of the rows. add: files with what stays of them, staged. holders: those of
    them with rows that are still to give way, as in `Replacing.files`."""

    remove: list[str] = field(default_factory=list)
    add: list[CommittedFile] = field(default_factory=list)
    holders: dict[str, frozenset[str]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Replacing:
    """Rows that are to give way to new ones in the entry that commits those; until then they stay.

    segments, sources: ids whose new rows replace live ones. The segments failed; those `with_faces` in part only.
    crops: those of the segments whose kept crops are this model's own to replace: of another model's nothing is taken.
    files: live files that hold rows of them -> their ids. followers: of a failed window of a video, those of the
    segments that have no row because of it.
    """

    segments: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    with_faces: set[str] = field(default_factory=set)
    crops: set[str] = field(default_factory=set)
    files: dict[str, frozenset[str]] = field(default_factory=dict)
    followers: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def must_wait(self, segments: Collection[str], beside: Collection[str]) -> bool:
        """Whether new rows of these segments can't be committed yet, only with those `beside` them: as long as one
        follower has no new answer, the old row must go on saying what became of it, or nobody would ask again."""
        followers = (one for segment_id in segments for one in self.followers.get(segment_id, ()))
        return any(one in self.segments and one not in beside for one in followers)

    def crops_without(
        self, state: LogState, model_id: str, gone: Collection[str], new: Collection[str] = ()
    ) -> list[str]:
        """Of the segments `gone` those whose kept crops go with their rows: there are `new` ones, or no other model has
        rows that they belong to as well."""
        others = [state.committed(other) for other in state.models if other != model_id]
        return [
            one
            for one in gone
            if one in self.crops and one in state.crops and (one in new or not any(one in ids for ids in others))
        ]

    def replaced(
        self,
        store: Store,
        run_id: str,
        state: LogState,
        model_id: str,
        segments: Collection[str],
        *,
        sources: Collection[str] = (),
        crops: Collection[str] = (),
    ) -> Replacement:
        """What the entry of the model's new rows for `segments`, for `sources`, and of new `crops`, removes; and what
        stays of it. Only files that hold some of them are read."""
        if not all(path in state.live for path in self.files):
            self.find_files(store, state, model_id)
        gone = {"sources": frozenset(sources), "crops": frozenset(crops)}
        result = Replacement()
        for path, held in sorted(self.files.items()):
            file = state.live[path]
            of_table = gone.get(file.table, frozenset(segments))
            if held.isdisjoint(of_table):
                continue
            rest = without(store, run_id, [file], of_table, column=_key(file))
            result.remove += rest.remove
            result.add += rest.add
            if held - of_table:
                result.holders |= {added.path: held - of_table for added in rest.add}
        return result

    def find_files(self, store: Store, state: LogState, model_id: str) -> None:
        """Looks for the files, in one column of those that may hold some."""
        wanted = {"segments": self.segments, "faces": self.with_faces, "sources": self.sources, "crops": self.crops}
        self.files = {}
        for file in state.files():
            is_good = file.table == "segments" and not file.path.endswith(ERRORS_SUFFIX)
            if file.model_id not in ("", model_id) or is_good or not wanted[file.table]:
                continue
            held = ids_in(store, file, wanted[file.table], _key(file))
            if held:
                self.files[file.path] = held

    def settle(self, entry: Entry, rest: Replacement) -> None:
        """The entry is committed."""
        self.segments -= set(entry.segments_removed)
        self.with_faces -= set(entry.segments_removed)
        self.crops -= set(entry.segments_removed)
        self.sources -= set(entry.sources_removed)
        self.files = {path: ids for path, ids in self.files.items() if path not in entry.remove} | rest.holders


def ids_in(store: Store, file: CommittedFile, wanted: Collection[str], column: str) -> frozenset[str]:
    """Those of the ids that the column of a live file has. Only that column is fetched."""
    found = read_live_columns(store, file, [column])[column]
    return frozenset(found.filter(pc.is_in(found, pa.array(sorted(wanted), pa.string()))).to_pylist())


def _key(file: CommittedFile) -> str:
    return "source_id" if file.table == "sources" else "segment_id"


def drop_segments(store: Store, log: CommitLog, run: Run, model_id: str, old: Replacing, segments: set[str]) -> None:
    """Takes rows out that nothing replaces: what their source was thought to have, and has not."""

    def build(state: LogState) -> Entry | None:
        gone = sorted(one for one in segments if one in state.committed(model_id))
        if not gone:
            return None
        crops = old.crops_without(state, model_id, gone)
        rest = old.replaced(store, run.run_id, state, model_id, gone, crops=crops)
        return Entry(
            run_id=run.run_id,
            model_id=model_id,
            remove=rest.remove,
            add=rest.add,
            segments_removed=gone,
            crops_removed=crops,
        )

    commit_entry(store, log, build)


def drop_sources(
    store: Store,
    log: CommitLog,
    run: Run,
    source_ids: Collection[str],
    covered: Collection[str],
    *,
    only_errors: bool = False,
) -> None:
    """Takes every row of the sources out of the dataset, whatever the model. covered: their segments without a row.
    only_errors: they have nothing but error rows, so no other files are looked at."""

    def holders(files: Iterable[CommittedFile]) -> list[CommittedFile]:
        return [
            file
            for file in files
            if (not only_errors or file.table == "sources" or file.path.endswith(ERRORS_SUFFIX))
            and ids_in(store, file, source_ids, "source_id")
        ]

    def segments_of(files: Iterable[CommittedFile], table: str) -> set[str]:
        ids = pa.array(sorted(source_ids), pa.string())
        parts = [sound_rows(store, file, ["segment_id", "source_id"]) for file in files if file.table == table]
        return {
            one for rows in parts for one in rows.filter(pc.is_in(rows["source_id"], ids))["segment_id"].to_pylist()
        }

    for model_id in list(log.state.models):

        def of_model(state: LogState, model_id: str = model_id) -> Entry | None:
            files = holders(state.files(model_id=model_id))
            gone = segments_of(files, "segments") | {one for one in covered if one in state.covered(model_id)}
            rest = without(store, run.run_id, files, source_ids, column="source_id")
            if not gone and not rest.remove:
                return None
            return Entry(
                run_id=run.run_id, model_id=model_id, remove=rest.remove, add=rest.add, segments_removed=sorted(gone)
            )

        commit_entry(store, log, of_model)

    def of_tables(state: LogState) -> Entry | None:
        files = holders(state.files(model_id=""))
        rest = without(store, run.run_id, files, source_ids, column="source_id")
        known = [one for one in sorted(source_ids) if one in state.sources]
        if not rest.remove and not known:
            return None
        return Entry(
            run_id=run.run_id,
            remove=rest.remove,
            add=rest.add,
            sources_removed=known,
            crops_removed=sorted(segments_of(files, "crops")),
        )

    commit_entry(store, log, of_tables)


def without(
    store: Store, run_id: str, files: Iterable[CommittedFile], gone: Collection[str], *, column: str = "segment_id"
) -> Replacement:
    """The files without the rows whose `column` is in `gone`. Files that have none of them are left alone, and of these
    nothing but the column is fetched.

    Memory: one file. Raises StoreError, also for a file that another run removed meanwhile.
    """
    result, ids = Replacement(), pa.array(sorted(gone), pa.string())
    for file in files if gone else ():
        if not ids_in(store, file, gone, column):
            continue
        rows = sound_rows(store, file)
        has = pc.is_in(rows[column], ids)
        result.remove.append(file.path)
        rest = rows.filter(pc.invert(has))
        if rest.num_rows:
            staged = stage_table(store, run_id, file.table, rest)
            only_errors = file.path.endswith(ERRORS_SUFFIX)
            result.add.append(to_commit(staged, run_id=run_id, model_id=file.model_id, only_errors=only_errors))
    return result
