"""The store writes a log entry, and the connection breaks before it can say so: the driver must know its own entry."""

from __future__ import annotations

import json
from pathlib import Path

from pipeline.storage.store import Store
from tests.faults.comparison import assert_same_tables
from tests.faults.faulty_proxy import Request, between
from tests.faults.job import Job
from tests.faults.s3 import direct, new_bucket


def test_answer_lost_after_conditional_put(job: Job, undisturbed: Path, s3_server: str) -> None:
    lost: set[str] = set()

    def first_answer(request: Request) -> str | None:
        """Of every entry of the log."""
        if not request.is_conditional_put or "/_ran/log/" not in request.path or request.path in lost:
            return None
        lost.add(request.path)
        return "drop after"

    output = f"s3://{new_bucket(s3_server)}/out"
    with between(s3_server, first_answer) as proxy:
        answer = job.but(storage_options=proxy.storage_options()).run(output)
    assert answer["status"] == "done"
    store = Store(output, direct(s3_server))
    written = [json.loads(store.read_bytes(path)) for path in store.list("_ran/log")]
    assert proxy.fired["drop after"] == len(lost) == len(written) > 1
    assert len({entry["nonce"] for entry in written}) == len(written)
    assert_same_tables(undisturbed, store)
