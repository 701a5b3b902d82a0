"""`inspect` and `errors`: what a dataset holds, and what failed."""

from __future__ import annotations

import json
from shlex import quote
from typing import Any

import click

from jobs.dataset import opened
from jobs.options import json_option, storage_option
from jobs.text import human_bytes, table
from pipeline.ledger.runs import RUNS, unfinished_runs
from pipeline.ledger.state import LogState
from pipeline.storage.store import Store
from pipeline.terminal import counted
from pipeline.urls import without_credentials
from pipeline.views import current_model


@click.command("inspect")
@click.argument("output", metavar="OUT")
@storage_option
@json_option
def inspect_command(output: str, storage_options: tuple[str, ...], as_json: bool) -> None:
    """What is in the dataset OUT: sources, segments, frames, faces, models, runs."""
    with opened(output, storage_options) as dataset:
        output = without_credentials(output)
        state = dataset.log.state
        query = dataset.query
        totals = query(
            "SELECT count(*) AS segments, coalesce(sum(len(frames)), 0)::BIGINT AS frames, "
            "coalesce(sum(faces_kept), 0)::BIGINT AS faces, count(*) FILTER (status <> 'ok') AS segments_with_errors, "
            "count(DISTINCT source_uri) FILTER (status <> 'ok') AS sources_with_errors FROM segments"
        )[0]
        report: dict[str, Any] = {
            "output": output,
            "extraction": dataset.extraction.to_json(),
            "sources": query(
                "SELECT kind, count(*) AS sources, sum(size_bytes)::BIGINT AS bytes FROM sources GROUP BY 1 ORDER BY 1"
            ),
            **totals,
            "models": [{"model_id": model, "segments": state.count(model)} for model in state.models],
            "expressions": query("SELECT expression, count(*) AS faces FROM faces GROUP BY 1 ORDER BY 2 DESC, 1"),
            "files": len(state.files()),
            "runs": _runs(dataset.store, state),
        }
    if as_json:
        click.echo(json.dumps(report, indent=2, default=str))
        return
    held = ", ".join(counted(report[noun], noun[:-1]) for noun in ("segments", "frames", "faces"))
    click.echo(f"{output}: {held}")
    if report["segments_with_errors"]:
        click.echo(
            f"errors in {counted(report['segments_with_errors'], 'segment')} of "
            f"{counted(report['sources_with_errors'], 'source')}; "
            f"see `ran-pipeline errors {quote(output)}`"
        )
    rows = [(row["kind"] or "unknown", row["sources"], human_bytes(row["bytes"] or 0)) for row in report["sources"]]
    click.echo("\n" + table(("kind", "sources", "size"), rows))
    click.echo("\n" + table(("expression", "faces"), [tuple(row.values()) for row in report["expressions"]]))
    click.echo("\n" + table(("model_id", "segments"), [tuple(row.values()) for row in report["models"]]))
    columns = ("run_id", "status", "model_id", "segments_done", "faces", "failed_sources", "elapsed_s")
    history = [tuple(run.get(column, "") for column in columns) for run in report["runs"]]
    click.echo("\n" + table(("run", "status", "model", "segments", "faces", "failed sources", "seconds"), history))
    extraction = ", ".join(f"{key} {value}" for key, value in report["extraction"].items() if key != "detector_sha256")
    click.echo(f"\nextraction: {extraction}")


def _runs(store: Store, state: LogState) -> list[dict[str, Any]]:
    """Those that wrote to the log, in its order, then those that have not yet and are at work or died."""
    live, stale = unfinished_runs(store, state)
    unfinished = dict.fromkeys(live, "running") | dict.fromkeys(stale, "not finished")
    quiet = sorted(unfinished.keys() - set(state.runs))
    closed = dict.fromkeys(state.closed_runs, "closed by another run")
    return [_run(store, run_id, (unfinished | closed).get(run_id, "no summary")) for run_id in [*state.runs, *quiet]]


def _run(store: Store, run_id: str, status: str) -> dict[str, Any]:
    """What a run left about itself; status: of one that has left no summary."""
    try:
        return {**json.loads(store.read_bytes(f"{RUNS}/{run_id}/summary.json")), "run_id": run_id}
    except (FileNotFoundError, ValueError):
        return {"run_id": run_id, "status": status}


@click.command("errors")
@click.argument("output", metavar="OUT")
@storage_option
@json_option
def errors_command(output: str, storage_options: tuple[str, ...], as_json: bool) -> None:
    """What failed in OUT, by code: each source or segment with its message."""
    with opened(output, storage_options) as dataset:
        models = dataset.log.state.models
        shown = current_model(dataset.log.state)
        rows = dataset.query(
            "SELECT model_id, error_code, status, error_stage, source_uri, start_s, end_s, first_member, "
            "error_message, attempts, segment_id FROM errors ORDER BY error_code, source_uri, start_s, first_member"
        )
        failed = dataset.query(
            "SELECT model_id, count(*) AS segments FROM all_segments WHERE status <> 'ok' GROUP BY 1 ORDER BY 1"
        )
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    if len(models) > 1:
        click.echo(f"of model {shown}, whose rows `query` shows:" + ("\n" if rows else " no errors"))
    elif not rows:
        click.echo("no errors")
    if rows:
        _echo_errors(rows)
    for other in failed:
        if other["model_id"] != shown:
            where = f"status <> 'ok' AND model_id = '{other['model_id']}'"
            click.echo(
                f"\n{counted(other['segments'], 'segment')} of model {other['model_id']} failed: "
                f'`ran-pipeline query {quote(without_credentials(output))} "FROM all_segments WHERE {where}"`'
            )


def _echo_errors(rows: list[dict[str, Any]]) -> None:
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["error_code"]] = counts.get(row["error_code"], 0) + 1
    click.echo(table(("code", "segments"), sorted(counts.items(), key=lambda item: -item[1])))
    shown = [(row["error_code"], row["status"], where_in_source(row), row["error_message"]) for row in rows]
    click.echo("\n" + table(("code", "status", "where", "what"), shown))


def where_in_source(row: dict[str, Any]) -> str:
    """The part of a source that a row of `errors` is about."""
    if row["start_s"] is not None:
        video = row["source_uri"] if row["first_member"] is None else f"{row['source_uri']}/{row['first_member']}"
        return f"{video} {row['start_s']:.1f}–{row['end_s']:.1f} s"
    if row["first_member"] is not None:
        return f"{row['source_uri']} from member {row['first_member']}"
    return str(row["source_uri"])
