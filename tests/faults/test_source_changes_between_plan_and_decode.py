"""One source is replaced and another deleted after the plan was made and before anybody read them."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

from tests.faults.comparison import assert_same_tables, table
from tests.faults.job import Job, ended
from tests.faults.processes import is_stopped, wait_for
from tests.media import write_video

DISTURBED = ("a.mp4", "b.mp4")


def test_source_changes_between_plan_and_decode(job: Job, media: Path, undisturbed: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "out"
    shutil.copytree(media, folder)
    mine = job.but(folder, root=str(folder))
    # The first entry of the log has the probed sources; the plan was made from it when it is there.
    driver = mine.start(output, tmp_path, "stop", "1", "after", "_ran/log/")
    try:
        wait_for("the driver's stop", lambda: is_stopped(driver.pid))
        assert not list(output.glob("segments/**/*.parquet"))
        write_video(folder / "b.mp4", frames=50)
        (folder / "a.mp4").unlink()
        os.kill(driver.pid, signal.SIGCONT)
        ended(driver)
    finally:
        driver.kill()
    rows = [row for row in table(output, "segments").to_pylist() if row["source_uri"] in DISTURBED]
    assert {(row["source_uri"], row["error_code"], row["status"]) for row in rows} == {
        ("a.mp4", "not_found", "error"),
        ("b.mp4", "source_changed", "error"),
    }
    assert not set(table(output, "faces")["source_uri"].to_pylist()) & set(DISTURBED)
    assert_same_tables(undisturbed, output, but=DISTURBED)

    mine.run(output)  # the new b.mp4 is a source of its own; nothing was kept of the old one
    again = [row for row in table(output, "segments").to_pylist() if row["source_uri"] == "b.mp4"]
    assert {row["status"] for row in again if row["source_id"] not in {old["source_id"] for old in rows}} == {"ok"}
    assert_same_tables(undisturbed, output, but=DISTURBED)
