"""What of a batch of staged sets is still to be committed: whatever neither the log nor the batch has already."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pipeline.ledger.staging import StagedSet
from pipeline.ledger.state import LogState


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
    """What one commit takes. tails: those that say more than the log."""

    selections: list[Selection]
    tails: dict[str, int] = field(default_factory=dict)

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
) -> Batch:
    """The first of each segment that is not committed for the model; crops once per segment, whatever the model.

    replacing, replacing_crops: segments whose committed rows, and whose kept crops, give way.
    """
    ids = [segment_id for staged in sets for segment_id in staged.segment_ids]
    taken = _present(ids, state.committed(model_id).contains(ids).tolist())
    cropped = _present(ids, state.crops.contains(ids).tolist())
    taken, cropped = taken - set(replacing), cropped - set(replacing_crops)
    selections = []
    tails: dict[str, int] = {}
    for staged in sets:
        segments = frozenset(staged.segment_ids) - taken
        has_crops = any(file.table == "crops" for file in staged.files)
        crops = segments - cropped if has_crops else frozenset()
        taken |= segments
        cropped |= crops
        selections.append(Selection(staged=staged, segments=segments, crops=crops))
        for source_id, windows in staged.tails.items():
            if windows > max(state.tails.get(source_id, 0), tails.get(source_id, 0)):
                tails[source_id] = windows
    return Batch(selections=selections, tails=tails)


def _present(ids: Sequence[str], mask: Sequence[bool]) -> set[str]:
    return {segment_id for segment_id, present in zip(ids, mask, strict=True) if present}
