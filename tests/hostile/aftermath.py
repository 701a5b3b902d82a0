"""One real run over many hostile files, and everything that it left: rows, files, processes, visits to canaries."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from tests.conftest import ROOT
from tests.datasets import table
from tests.hostile.canaries import Canaries
from tests.hostile.case import Case

DEADLINE_S = 60  # of one segment; a file that needs it is a finding
LONGEST_S = 1500


@dataclass(frozen=True, kw_only=True)
class Aftermath:
    """segments: rows of `segments` by the name of the case. faces: all rows of `faces`, with the case's name as `case`.

    sources: rows of `sources`. strays: what was written, changed or removed outside of the output and the scratch
    folder. survivors: processes that outlived the run. visits: see `Canaries`.
    """

    cases: Sequence[Case]
    exit_code: int
    stdout: str
    stderr: str
    output: Path
    sources: list[dict[str, Any]]
    segments: dict[str, list[dict[str, Any]]]
    faces: list[dict[str, Any]]
    strays: list[str]
    survivors: list[str]
    visits: list[str]


def run_over(cases: Sequence[Case], canaries: Canaries, folder: Path, model: Path) -> Aftermath:
    """Writes the files, runs `ran-pipeline run` over their folder and over those that are inputs by name, and looks."""
    inputs, output, scratch, temporary = (folder / name for name in ("in", "out", "scratch", "tmp"))
    temporary.mkdir()
    named: dict[str, str] = {}
    for case in cases:
        (inputs / case.name).mkdir(parents=True)
        path = case.write(inputs / case.name)
        if case.is_named:
            named[str(path)] = case.name
    before = _snapshot(folder)
    canaries.watch()
    mark, ray_folder = uuid.uuid4().hex, tempfile.mkdtemp(prefix="rh-", dir="/tmp")  # Ray's socket paths must be short
    environment = os.environ | {"HOSTILE_RUN": mark, "TMPDIR": str(temporary), "RAY_TMPDIR": ray_folder}
    environment.pop("RAY_ADDRESS", None)  # a Ray of its own: whatever is left of the run is then its own too
    command = [
        sys.executable, "-m", "jobs.cli", "run", str(inputs), *named, "-o", str(output), "--model", str(model),
        "--scratch", str(scratch), "--scratch-gib", "1", "--fps", "10", "--segment-frames", "8",
        "--deadline-s", str(DEADLINE_S), "--decode-memory", "2",
    ]  # fmt: skip
    try:
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=LONGEST_S, check=False
        )
        survivors = _survivors(mark)
    finally:
        shutil.rmtree(ray_folder, ignore_errors=True)
    visits = canaries.visits
    after = _snapshot(folder)
    strays = [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)]
    allowed = (str(output), str(scratch))
    tables = {
        name: table(output, name).to_pylist()
        for name in ("sources", "segments", "faces")
        if list((output / name).rglob("*.parquet"))
    }
    segments: dict[str, list[dict[str, Any]]] = {case.name: [] for case in cases}
    for row in tables.get("segments", []):
        segments[_case(row["source_uri"], inputs, named)].append(row)
    faces = [row | {"case": _case(row["source_uri"], inputs, named)} for row in tables.get("faces", [])]
    return Aftermath(
        cases=cases,
        exit_code=done.returncode,
        stdout=done.stdout,
        stderr=done.stderr,
        output=output,
        sources=tables.get("sources", []),
        segments=segments,
        faces=faces,
        strays=sorted(path for path in strays if not path.startswith(allowed)),
        survivors=survivors,
        visits=visits,
    )


def _case(uri: str, inputs: Path, named: dict[str, str]) -> str:
    path = os.fsdecode(unquote(uri.removeprefix("file://"), errors="surrogateescape")) if "://" in uri else uri
    if path in named:
        return named[path]
    return Path(path).relative_to(inputs).parts[0]


def _snapshot(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every file and folder below, links not followed: type, size, modification time (of files)."""
    found = {}
    pending = [os.fspath(folder)]
    while pending:
        for entry in os.scandir(pending.pop()):
            status = entry.stat(follow_symlinks=False)
            is_folder = entry.is_dir(follow_symlinks=False)
            found[entry.path] = (status.st_mode, 0, 0) if is_folder else (
                status.st_mode, status.st_size, status.st_mtime_ns
            )  # fmt: skip
            if is_folder:
                pending.append(entry.path)
    return found


def _survivors(mark: str, patience_s: float = 30.0) -> list[str]:
    """Processes that still carry the run's mark in their environment; Ray's are given time to end."""
    until = time.monotonic() + patience_s
    while (left := _marked(mark)) and time.monotonic() < until:
        time.sleep(0.2)
    return left


def _marked(mark: str) -> list[str]:
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if mark.encode() in (process / "environ").read_bytes():
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:
            continue  # it has ended
    return [line for line in found if line]  # a zombie has no command line
