"""Probing: header, duration and archive index of sources that the dataset does not know yet. Few of them are probed by
the driver itself, while Ray starts; many by actors."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pyarrow as pa
import ray

from pipeline import __version__, schema
from pipeline.child import AbandonedError, DecodeChild
from pipeline.errors import StoreError
from pipeline.media.locations import local_path
from pipeline.media.sniff import guess_kind
from pipeline.media.sources import Source
from pipeline.resources import Resources
from pipeline.worker import WorkerConfig

UNIT_SOURCES = 32  # one actor's portion
POLL_S = 0.5
#: Probed by the driver: more would keep actors waiting; and fetched by it, whose node may have little disk.
MOST_SOURCES_HERE, MOST_BYTES_HERE = 32, 256 << 20

_SOURCE = pa.schema(
    {
        "source_id": pa.string(),
        "uri": pa.string(),
        "location": pa.string(),
        "fingerprint": pa.string(),
        "size_bytes": pa.int64(),
    }
)


class Prober:
    """Source rows in, rows of the `sources` table out; once it is abandoned, only of what was read by then. Headers are
    foreign bytes too, so a child reads them."""

    def __init__(self, config: WorkerConfig, deadline_s: float, run_id: str) -> None:
        self._child = DecodeChild(config, deadline_s=deadline_s)
        self._run_id = run_id

    def __call__(self, sources: pa.Table) -> pa.Table:
        rows = []
        for row in sources.to_pylist():
            try:
                probed = self._child.probe(Source(**row))
            except AbandonedError:
                break
            rows.append({**probed, "run_id": self._run_id, "pipeline_version": __version__})
        return pa.Table.from_pylist(rows, schema=schema.SOURCES)

    def abandon(self) -> None:
        """From another thread: kills the child, whatever it waits for. The source that it reads is left out."""
        self._child.abandon()

    def close(self) -> None:
        """Ends the child."""
        self._child.stop()


def are_few(sources: Sequence[Source]) -> bool:
    """Whether to probe them here: actors would take longer to come up. Of remote videos only headers are read; archives
    are fetched."""
    fetched = [s.size_bytes for s in sources if local_path(s.location) is None and guess_kind(s.uri) != "video"]
    return len(sources) <= MOST_SOURCES_HERE and sum(fetched) <= MOST_BYTES_HERE


def probe_here(sources: Sequence[Source], config: WorkerConfig, *, deadline_s: float, run_id: str) -> pa.Table:
    """Rows of the `sources` table, from one child of this process."""
    return _probe_with(Prober(config, deadline_s, run_id), sources)


def _probe_with(prober: Prober, sources: Sequence[Source]) -> pa.Table:
    with contextlib.closing(prober):
        return prober(_table(sources))


class Probing:
    """The probing of a run's new sources. As a context it begins with few of them while Ray starts; leaving it ends
    that, finished or not."""

    def __init__(self, sources: Sequence[Source], config: WorkerConfig, *, deadline_s: float, run_id: str) -> None:
        self._sources = sources
        self._config = config
        self._deadline_s = deadline_s
        self._run_id = run_id
        self._thread = ThreadPoolExecutor(1, "probing")
        self._here = Prober(config, deadline_s, run_id)
        self._few: Future[pa.Table] | None = None

    def __enter__(self) -> Probing:
        if self._sources and are_few(self._sources):
            self._few = self._thread.submit(_probe_with, self._here, self._sources)
        return self

    def __exit__(self, *error: object) -> None:
        self._here.abandon()
        self._thread.shutdown()

    def tables(self, resources: Resources, stop: threading.Event) -> Iterator[pa.Table]:
        """Rows of the `sources` table, as they are ready, until `stop` is set: what is not done by then has none.
        Raises StoreError where the cluster fails."""
        from pipeline.execution import actors_dont_start, cause_of, did_not_start, in_a_line, raise_for_users

        try:
            if self._few is not None:
                while not wait([self._few], timeout=POLL_S).done:
                    if stop.is_set():
                        self._here.abandon()
                        break
                yield self._few.result()
            else:
                yield from self._by_actors(resources, stop)
        except Exception as error:
            cause = cause_of(error)
            if did_not_start(cause):
                raise actors_dont_start(cause) from error
            raise_for_users(cause)
            if isinstance(cause, ray.exceptions.RayError):
                raise StoreError(f"probing failed: {in_a_line(cause)}; run the same command again") from error
            raise

    def _by_actors(self, resources: Resources, stop: threading.Event) -> Iterator[pa.Table]:
        """All of them, also where actors don't start at once."""
        from pipeline.execution import MOST_STARTS, cause_of, did_not_start

        left, failed_starts = list(self._sources), 0
        while left and not stop.is_set():
            probed: set[str] = set()
            try:
                for rows in self._execution(left, resources, stop):
                    probed.update(rows["source_id"].to_pylist())
                    yield rows
                return
            except Exception as error:
                failed_starts = 1 if probed else failed_starts + 1
                if not did_not_start(cause_of(error)) or failed_starts >= MOST_STARTS:
                    raise
            left = [source for source in left if source.source_id not in probed]

    def _execution(self, sources: Sequence[Source], resources: Resources, stop: threading.Event) -> Iterator[pa.Table]:
        """In units. Raises what the execution failed with."""
        from ray.data import ActorPoolStrategy, from_blocks

        from pipeline.execution import blocks_until
        from pipeline.graph import BOUNDED

        units = [_table(sources[start : start + UNIT_SOURCES]) for start in range(0, len(sources), UNIT_SOURCES)]
        fewest, most = (min(len(units), actors) for actors in resources.decode_pool)
        dataset = from_blocks(units).map_batches(
            Prober,
            fn_constructor_args=(self._config, self._deadline_s, self._run_id),
            compute=ActorPoolStrategy(min_size=fewest, max_size=most),
            num_cpus=resources.decode_cpus,
            batch_format="pyarrow",
            **BOUNDED,
        )
        with contextlib.closing(blocks_until(stop, dataset)) as blocks:
            for block in blocks:
                if isinstance(block, BaseException):
                    raise block
                if block is not None:
                    yield block


def _table(sources: Sequence[Source]) -> pa.Table:
    rows = [{name: getattr(source, name) for name in _SOURCE.names} for source in sources]
    return pa.Table.from_pylist(rows, _SOURCE)
