"""What of a batch of staged sets is still to be committed: whatever neither the log nor the batch has already; of the
windows without a row only those that an error row speaks for, in the log or the batch."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger.entry import CommittedFile
from pipeline.ledger.live import read_each, sound_rows
from pipeline.ledger.staging import ERRORS_SUFFIX, StagedSet
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store


@dataclass(frozen=True, kw_only=True)
class Selection:
    """One set's part: rows of `segments` go in, and crops of `crops`, if they are not all of the set's."""

    staged: StagedSet
    segments: frozenset[str]
    crops: frozenset[str]

    @property
    def covered(self) -> list[str]:
        """Selected segments without a row."""
        return [segment_id for segment_id in self.staged.covered if segment_id in self.segments]

    @property
    def rows(self) -> int:
        """How many rows the segments table gets."""
        return len(self.segments) - len(self.covered)


@dataclass(frozen=True, kw_only=True)
class Batch:
    """What one commit takes. tails: those that say more than the log. unspoken: windows without a row that it does not
    take, since nothing speaks for them."""

    selections: list[Selection]
    tails: dict[str, int] = field(default_factory=dict)
    unspoken: set[str] = field(default_factory=set)

    @property
    def segments(self) -> list[str]:
        """All segments of the commit, in staged order."""
        return [s for chosen in self.selections for s in chosen.staged.segment_ids if s in chosen.segments]

    @property
    def covered(self) -> list[str]:
        """Those of them without a row."""
        return [segment_id for chosen in self.selections for segment_id in chosen.covered]

    @property
    def crops(self) -> list[str]:
        """Segments whose crops are in the commit."""
        return [s for chosen in self.selections for s in chosen.staged.segment_ids if s in chosen.crops]


def select(
    sets: Sequence[StagedSet],
    state: LogState,
    model_id: str,
    replacing: Collection[str] = frozenset(),
    replacing_crops: Collection[str] = frozenset(),
    speaking: Collection[str] = frozenset(),
) -> Batch:
    """The first of each segment that is not committed for the model; crops once per segment, whatever the model.

    replacing, replacing_crops: segments whose committed rows, and whose kept crops, give way. speaking: as `speaking`
    finds them.
    """
    ids = [segment_id for staged in sets for segment_id in staged.segment_ids]
    taken = state.committed(model_id).common(ids) - set(replacing)
    cropped = state.crops.common(ids) - set(replacing_crops)
    selections = []
    tails: dict[str, int] = {}
    chosen, unspoken = set[str](), set[str]()
    for staged in sets:
        for segment_id in staged.segment_ids:
            if segment_id not in taken:
                teller = staged.tellers.get(segment_id)
                is_told = teller is None or teller in chosen or teller in speaking
                (chosen if is_told else unspoken).add(segment_id)
        segments = frozenset(chosen.intersection(staged.segment_ids) - taken)
        has_crops = any(file.table == "crops" for file in staged.files)
        crops = segments - cropped if has_crops else frozenset()
        taken |= segments
        cropped |= crops
        selections.append(Selection(staged=staged, segments=segments, crops=crops))
        for source_id, windows in staged.tails.items():
            if windows > max(state.tails.get(source_id, 0), tails.get(source_id, 0)):
                tails[source_id] = windows
    return Batch(selections=selections, tails=tails, unspoken=unspoken - chosen)


def speaking(store: Store, state: LogState, model_id: str, sets: Sequence[StagedSet]) -> set[str]:
    """Those of the sets' tellers that speak in the log: they have an error row, or are covered. Files are read only if
    another row, of this run or another, has come before. Raises StoreError."""
    tellers = {teller for staged in sets for teller in staged.tellers.values()}
    covered = state.covered(model_id).common(tellers)
    unsure = pa.array(sorted(state.committed(model_id).common(tellers - covered)), pa.string())

    def with_errors(file: CommittedFile) -> list[str]:
        rows = sound_rows(store, file, ["segment_id", "status"])
        is_error = pc.and_(pc.equal(rows["status"], "error"), pc.is_in(rows["segment_id"], unsure))
        found: list[str] = rows.filter(is_error)["segment_id"].to_pylist()
        return found

    files = [file for file in state.files("segments", model_id) if file.path.endswith(ERRORS_SUFFIX)]
    return covered.union(*read_each(files if len(unsure) else [], with_errors))
