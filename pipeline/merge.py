"""Many small staged files become one file per table, without the segments that somebody committed first.

Memory: a few staged files and one row group. Staged files that are large already, and need nothing dropped, are taken as
they are, so that pictures of faces don't travel through the driver.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
import uuid
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import schema
from pipeline.errors import StoreError
from pipeline.staging import STAGING, StagedFile, StagedSet, stage_table
from pipeline.store import Store

#: Staged files from this size on are not merged further.
LARGE_BYTES = 64 << 20
_ROW_GROUP_ROWS, _ROW_GROUP_BYTES = 65_536, 64 << 20
_READ_AHEAD = 4


@dataclass(frozen=True, kw_only=True)
class Selection:
    """Which part of a staged set is committed: the set less what was committed before or stands twice in a batch."""

    staged: StagedSet
    segments: frozenset[str]
    crops: frozenset[str]
    sources: frozenset[str]
    drops: bool = False


@dataclass(kw_only=True)
class Merged:
    """`files` hold exactly the selected rows. `own` of them were written here; the others were staged by workers.

    used: every staged path that `files` replace or contain.
    """

    files: list[StagedFile] = field(default_factory=list)
    error_files: list[StagedFile] = field(default_factory=list)
    own: list[str] = field(default_factory=list)
