"""Files whose content is not what their rows were made of, and how new rows come in place of the old ones."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import schema
from pipeline.config import Extraction
from pipeline.media.sources import MOST_NAMED, Source
from pipeline.segments import segment_id


class ChangedFiles:
    """Those of one run. Old rows stay, beside an error row that tells of the new content; with `replaces` they give way
    to rows of the new content, but not before it is probed: a file that can't be read now, perhaps because it is still
    being copied, takes nothing away.
    """

    def __init__(self, sources: Sequence[Source] = (), *, replaces: bool = False) -> None:
        self._sources = list(sources)
        self._ids = frozenset(source.source_id for source in sources)
        self._parts = [schema.empty("sources")]
        self._replaces = replaces

    @property
    def to_probe(self) -> list[Source]:
        """Those whose new content is to be read."""
        return self._sources if self._replaces else []

    def take(self, probed: pa.Table) -> pa.Table:
        """Keeps of the probed rows of `sources` those of changed files, which are not to be committed yet. Returns the
        others."""
        is_theirs = pa.array([one in self._ids for one in probed["source_id"].to_pylist()], pa.bool_())
        self._parts.append(probed.filter(is_theirs))
        return probed.filter(pc.invert(is_theirs))

    @property
    def readable(self) -> pa.Table:
        """Rows of `sources` of the new content that can take the place of the old."""
        return self._probed.filter(pc.is_null(self._probed["error_code"]))

    @property
    def staying(self) -> list[Source]:
        """Those that get an error row: nothing is to be replaced, or the new content can't be read."""
        unreadable = set(self._unreadable["source_id"].to_pylist())
        return [source for source in self._sources if not self._replaces or source.source_id in unreadable]

    def error_segments(self, extraction: Extraction) -> set[str]:
        """Segments of the readable ones that an earlier run's error row may speak for."""
        return {segment_id(source_id, 0, extraction.id) for source_id in self.readable["source_id"].to_pylist()}

    def notes(self) -> list[str]:
        """For people: what can't be replaced, and why."""
        count = self._unreadable.num_rows
        first = self._unreadable.slice(0, MOST_NAMED).select(["source_uri", "error_code"]).to_pylist()
        named = [f"{row['source_uri']} ({row['error_code']})" for row in first]
        if count > MOST_NAMED:
            named.append(f"{count - MOST_NAMED} more")
        told = f"changed, but can't be read as they are now, so their old rows stay: {', '.join(named)}"
        return [told] if named else []

    @property
    def _probed(self) -> pa.Table:
        self._parts = [pa.concat_tables(self._parts).combine_chunks()]
        return self._parts[0]

    @property
    def _unreadable(self) -> pa.Table:
        return self._probed.filter(pc.is_valid(self._probed["error_code"]))
