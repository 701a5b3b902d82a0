"""Probing on the cluster: header, duration and archive index of sources that the dataset does not know yet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pyarrow as pa
from ray.data import ActorPoolStrategy
from ray.data import from_arrow as dataset_from_arrow

from pipeline import __version__, schema
from pipeline.child import DecodeChild
from pipeline.graph import BOUNDED, manifests
from pipeline.media.sources import Source
from pipeline.resources import Resources
from pipeline.worker import WorkerConfig

UNIT_SOURCES = 32

_SOURCE = pa.schema(
    {
        "source_id": pa.string(),
        "uri": pa.string(),
        "location": pa.string(),
        "fingerprint": pa.string(),
        "size_bytes": pa.int64(),
    }
)


class ProbeActor:
    """Source rows in, rows of the `sources` table out. Headers are foreign bytes too, so a child reads them."""

    def __init__(self, config: WorkerConfig, deadline_s: float, run_id: str) -> None:
        self._child = DecodeChild(config, deadline_s=deadline_s)
        self._run_id = run_id

    def __call__(self, sources: pa.Table) -> pa.Table:
        rows = []
        for row in sources.to_pylist():
            probed = self._child.probe(Source(**row))
            rows.append({**probed, "run_id": self._run_id, "pipeline_version": __version__})
        return pa.Table.from_pylist(rows, schema=schema.SOURCES)


def probe(
    sources: Iterable[Source], *, config: WorkerConfig, deadline_s: float, run_id: str, resources: Resources
) -> Iterator[pa.Table]:
    """Rows of the `sources` table, in units, as they are ready."""
    listed = list(sources)
    units = [
        pa.Table.from_pylist([{name: getattr(source, name) for name in _SOURCE.names} for source in unit], _SOURCE)
        for unit in (listed[start : start + UNIT_SOURCES] for start in range(0, len(listed), UNIT_SOURCES))
    ]
    actors = min(len(units), resources.decode_actors)
    dataset = dataset_from_arrow(units).map_batches(
        ProbeActor,
        fn_constructor_args=(config, deadline_s, run_id),
        compute=ActorPoolStrategy(min_size=actors, max_size=actors),
        num_cpus=resources.decode_cpus,
        batch_format="pyarrow",
        **BOUNDED,
    )
    yield from manifests(dataset)
