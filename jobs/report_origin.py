"""Where a dataset's rows come from: its model, its runs, its extraction."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs.dataset import OpenedDataset
from pipeline.ledger.runs import RUNS
from ran_model.config import ModelConfig
from ran_model.model_files import default_model_dir, model_id, read_model_bytes


@dataclass(frozen=True, kw_only=True)
class Origin:
    """model_name, model_version: of the model directory, None where it is not on this machine any more. model_path:
    what the newest run was given. runs: whose rows these are. first_run, last_run: when they began, ended: when the
    last one ended, None if it has not; ISO 8601, UTC. unfinished_runs: at work, or killed. extraction: as in
    dataset.json."""

    output: str
    made_at: str
    model_id: str | None
    model_name: str | None
    model_version: str | None
    model_path: str | None
    other_models: list[str]
    runs: int
    first_run: str | None
    last_run: str | None
    ended: str | None
    unfinished_runs: list[str]
    extraction: dict[str, Any]


def origin(dataset: OpenedDataset) -> Origin:
    """Of the views' model."""
    model, state = dataset.model, dataset.log.state
    runs = [row["run_id"] for row in dataset.query("SELECT DISTINCT run_id FROM segments ORDER BY run_id")]
    path = _model_path(dataset, runs[-1]) if runs else None
    config = _model_config(path, model)
    return Origin(
        output=dataset.store.url,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        model_id=model,
        model_name=config.name if config else None,
        model_version=config.version if config else None,
        model_path=path,
        other_models=[other for other in state.models if other != model],
        runs=len(runs),
        first_run=_began(runs[0]) if runs else None,
        last_run=_began(runs[-1]) if runs else None,
        ended=_ended(dataset, runs[-1]) if runs else None,
        unfinished_runs=_unfinished(dataset),
        extraction=dataset.extraction.to_json(),
    )


def _began(run_id: str) -> str | None:
    """A run's id begins with its time."""
    try:
        return datetime.strptime(run_id.partition("-")[0], "%Y%m%dT%H%M%S").replace(tzinfo=UTC).isoformat()
    except ValueError:
        return None


def _ended(dataset: OpenedDataset, run_id: str) -> str | None:
    try:
        ended = datetime.fromisoformat(dataset.store.read_bytes(f"{RUNS}/{run_id}/finished").decode())
    except (FileNotFoundError, ValueError):
        return None
    return ended.isoformat(timespec="seconds")


def _unfinished(dataset: OpenedDataset) -> list[str]:
    """Told apart no further, for the store's clock can only be read by writing, which a reader may not be allowed."""
    paths = dataset.store.list(RUNS)
    finished = {path.split("/")[2] for path in paths if path.endswith("/finished")}
    return sorted({path.split("/")[2] for path in paths} - finished - dataset.log.state.closed_runs)


def _model_path(dataset: OpenedDataset, run_id: str) -> str | None:
    try:
        path = json.loads(dataset.store.read_bytes(f"{RUNS}/{run_id}/config.json"))["run"]["model"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return path if isinstance(path, str) else None


def _model_config(path: str | None, wanted: str | None) -> ModelConfig | None:
    """The configuration of the wanted model, if the run's directory or the default one still holds it."""
    for directory in (path, default_model_dir()):
        if directory in (None, "default") or not Path(str(directory)).is_dir():
            continue
        try:
            content, weights = read_model_bytes(str(directory))
            config = ModelConfig.from_json(content)
        except ValueError:
            continue
        if model_id(config, weights) == wanted:
            return config
    return None
