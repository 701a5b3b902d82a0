"""Rows leave the dataset: files that hold some of them are replaced by files with the rest, in one entry of the log."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ErrorCode
from pipeline.ledger.entry import CommittedFile, Entry
from pipeline.ledger.id_set import WantedIds
from pipeline.ledger.live import read_each, read_live_columns, sound_rows
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
    awaited: segments without rows, of a source whose old content has just left. Another run that still saw it may
    commit a row that tells of the change: that gives way too.
    files: live files that hold rows of them -> their ids. followers: of a failed window of a video, those of the
    segments that have no row because of it.
    """

    segments: set[str] = field(default_factory=set)
    sources: set[str] = field(default_factory=set)
    with_faces: set[str] = field(default_factory=set)
    crops: set[str] = field(default_factory=set)
    awaited: set[str] = field(default_factory=set)
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
        own = state.crops.common(self.crops.intersection(gone))
        shared = own.difference(new)
        shared &= {one for other in state.models if other != model_id for one in state.committed(other).common(shared)}
        return sorted(own - shared)

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
        gone = dict.fromkeys(("segments", "faces"), frozenset(segments))
        gone |= {"sources": frozenset(sources), "crops": frozenset(crops)}
        result = Replacement()
        for path, held in sorted(self.files.items()):
            file = state.live[path]
            going = held & gone[file.table]
            if not going:
                continue
            rest = _rest(store, run_id, [file], {path: going}, _key(file.table))
            result.remove += rest.remove
            result.add += rest.add
            if held - going:
                result.holders |= {added.path: held - going for added in rest.add}
        return result

    def meet(self, store: Store, state: LogState, model_id: str, segments: Collection[str]) -> None:
        """Finds what another run has committed meanwhile of the `awaited` among these segments."""
        late = state.committed(model_id).common(self.awaited.intersection(segments))
        if not late:
            return

        def telling(file: CommittedFile) -> frozenset[str]:
            rows = read_live_columns(store, file, ["segment_id", "error_code"])
            is_change = pc.equal(rows["error_code"], str(ErrorCode.SOURCE_CHANGED))
            return frozenset(late.intersection(rows.filter(is_change)["segment_id"].to_pylist()))

        files = [file for file in state.files("segments", model_id) if file.path.endswith(ERRORS_SUFFIX)]
        for file, found in zip(files, read_each(files, telling), strict=True):
            if found:
                self.files[file.path] = self.files.get(file.path, frozenset()) | found
                self.segments |= found

    def find_files(self, store: Store, state: LogState, model_id: str) -> None:
        """Looks for the files, in one column of those that may hold some."""
        wanted = {"segments": self.segments, "faces": self.with_faces, "sources": self.sources, "crops": self.crops}
        self.files = {}
        for table, ids in wanted.items():
            files = [file for file in state.files(table) if file.model_id in ("", model_id)]
            if table == "segments":
                files = [file for file in files if file.path.endswith(ERRORS_SUFFIX)]
            self.files |= holders(store, files, ids, _key(table))

    def settle(self, entry: Entry, rest: Replacement) -> None:
        """The entry is committed."""
        self.segments -= set(entry.segments_removed)
        self.with_faces -= set(entry.segments_removed)
        self.crops -= set(entry.segments_removed)
        self.sources -= set(entry.sources_removed)
        self.files = {path: ids for path, ids in self.files.items() if path not in entry.remove} | rest.holders


def holders(
    store: Store, files: Sequence[CommittedFile], wanted: Collection[str], column: str
) -> dict[str, frozenset[str]]:
    """Paths of those of the live files that have some of the ids in the column -> these. Only that column is fetched,
    of several files at once."""
    ids = WantedIds(wanted)

    def held(file: CommittedFile) -> frozenset[str]:
        return ids.among(read_live_columns(store, file, [column])[column])

    found = zip(files, read_each(files, held), strict=True) if wanted else ()
    return {file.path: of_file for file, of_file in found if of_file}


def _key(table: str) -> str:
    return "source_id" if table == "sources" else "segment_id"


def drop_segments(store: Store, log: CommitLog, run: Run, model_id: str, old: Replacing, segments: set[str]) -> None:
    """Takes rows out that nothing replaces: what their source was thought to have, and has not."""

    def build(state: LogState) -> Entry | None:
        gone = sorted(state.committed(model_id).common(segments))
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
) -> list[str]:
    """Takes every row of the sources out of the dataset, whatever the model; returns the models that had some. covered:
    their segments without a row. only_errors: they have no other rows, but perhaps crops of rows that a removal which
    was cut short had taken out; so no files of good rows are looked at."""

    def with_some(files: Iterable[CommittedFile]) -> tuple[list[CommittedFile], dict[str, frozenset[str]]]:
        """Files with rows of the sources, and of which."""
        looked_at = [
            file
            for file in files
            if not only_errors or file.table in ("sources", "crops") or file.path.endswith(ERRORS_SUFFIX)
        ]
        held = holders(store, looked_at, source_ids, "source_id")
        return [file for file in looked_at if file.path in held], held

    def segments_of(files: Iterable[CommittedFile], held: Mapping[str, frozenset[str]], table: str) -> set[str]:
        found = set[str]()
        for file in files:
            if file.table == table:
                rows = sound_rows(store, file, ["segment_id", "source_id"])
                ids = pa.array(list(held[file.path]), pa.string())
                found.update(rows.filter(pc.is_in(rows["source_id"], ids))["segment_id"].to_pylist())
        return found

    lost: list[str] = []
    for model_id in list(log.state.models):

        def of_model(state: LogState, model_id: str = model_id) -> Entry | None:
            files, held = with_some(state.files(model_id=model_id))
            gone = segments_of(files, held, "segments") | state.covered(model_id).common(covered)
            rest = _rest(store, run.run_id, files, held, "source_id")
            if not gone and not rest.remove:
                return None
            return Entry(
                run_id=run.run_id, model_id=model_id, remove=rest.remove, add=rest.add, segments_removed=sorted(gone)
            )

        if commit_entry(store, log, of_model):
            lost.append(model_id)

    def of_tables(state: LogState) -> Entry | None:
        files, held = with_some(state.files(model_id=""))
        rest = _rest(store, run.run_id, files, held, "source_id")
        known = sorted(state.sources.common(source_ids))
        if not rest.remove and not known:
            return None
        return Entry(
            run_id=run.run_id,
            remove=rest.remove,
            add=rest.add,
            sources_removed=known,
            crops_removed=sorted(segments_of(files, held, "crops")),
        )

    commit_entry(store, log, of_tables)
    return lost


def without(
    store: Store, run_id: str, files: Sequence[CommittedFile], gone: Collection[str], *, column: str = "segment_id"
) -> Replacement:
    """The files without the rows whose `column` is in `gone`. Files that have none of them are left alone, and of these
    nothing but the column is fetched.

    Raises StoreError, also for a file that another run removed meanwhile.
    """
    held = holders(store, files, gone, column)
    return _rest(store, run_id, [file for file in files if file.path in held], held, column)


def _rest(
    store: Store, run_id: str, files: Iterable[CommittedFile], gone: Mapping[str, frozenset[str]], column: str
) -> Replacement:
    """The files without the rows whose `column` is in what `gone` says by path. Memory: one file."""
    result = Replacement()
    for file in files:
        rows = sound_rows(store, file)
        rest = rows.filter(pc.invert(pc.is_in(rows[column], pa.array(list(gone[file.path]), pa.string()))))
        if rest.num_rows == rows.num_rows:
            continue
        result.remove.append(file.path)
        if rest.num_rows:
            staged = stage_table(store, run_id, file.table, rest)
            only_errors = file.path.endswith(ERRORS_SUFFIX)
            result.add.append(to_commit(staged, run_id=run_id, model_id=file.model_id, only_errors=only_errors))
    return result
