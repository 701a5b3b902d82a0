"""`run` and `plan`: the main job, and what it would do."""

from __future__ import annotations

import json
from shlex import quote
from typing import TYPE_CHECKING, Any

import click

from jobs.options import extraction_options, json_option, parse_storage_options, read_list, run_options
from jobs.text import human_bytes, human_seconds, table
from pipeline.errors import ErrorRateError
from pipeline.progress import ProgressReporter
from pipeline.run_config import RunConfig
from pipeline.summary import Summary
from pipeline.terminal import counted
from pipeline.urls import without_credentials

if TYPE_CHECKING:
    from pipeline.dry_run import DryRun
    from pipeline.resources import Resources


@click.command("run")
@click.argument("inputs", nargs=-1, metavar="INPUT…")
@extraction_options
@run_options
@json_option
@click.option("--quiet", is_flag=True, help="No progress.")
def run_command(as_json: bool, quiet: bool, **options: Any) -> int:
    """Find every face in INPUT… and write what each showed to the dataset OUT.

    INPUT is a video, a picture, a tar or zip of either, a folder, a glob, or an s3:// URL of any of them; --from-file
    takes a list. Run the same command again after a crash or with more inputs: what is done is not done again.
    """
    from pipeline.driver import Driver
    from pipeline.prepare import prepare

    extraction, config = configuration(options)
    prepared = prepare(config, extraction)
    with ProgressReporter(quiet=quiet) as progress:
        summary = Driver(config, prepared).run(progress)
    return conclude(summary, config, as_json=as_json)


def conclude(summary: Summary, config: RunConfig, *, as_json: bool) -> int:
    """Prints what a run did; its exit code. Raises ErrorRateError."""
    if as_json:
        click.echo(json.dumps(summary.to_json(), indent=2))
    else:
        click.echo(describe(summary))
    if summary.status == "interrupted":
        return 130
    return check_error_rate(summary, config)


@click.command("plan")
@click.argument("inputs", nargs=-1, metavar="INPUT…")
@extraction_options
@run_options
@json_option
def plan_command(as_json: bool, **options: Any) -> int:
    """Say what `run` with the same arguments would do, and whether machine and disk can hold it. Writes nothing."""
    from pipeline.dry_run import dry_run

    extraction, config = configuration(options)
    report = dry_run(config, extraction)
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        click.echo(describe_plan(report))
    return 0


def describe_plan(report: DryRun) -> str:
    """The dry run for people."""
    share, need = report.resources, report.need
    kinds = ", ".join(
        f"{count:,} {kind}" if kind in ("changed", "unknown") else counted(count, kind)
        for kind, count in sorted(report.sources.items())
    )
    todo = report.segments - report.segments_already_done - report.segments_left
    in_archives = report.videos_in_archives
    lines = [
        f"{counted(sum(report.sources.values()), 'source')} ({kinds}), {human_bytes(report.bytes)}; "
        f"{report.sources_to_probe:,} to be probed for {report.output}",
        *report.notes,
        f"{counted(report.segments, 'segment')}, {report.segments_already_done:,} already done for model "
        f"{report.model_id}; {todo:,} to do"
        + (f" and {report.segments_left:,} left by --limit" if report.segments_left else "")
        + f", at most {counted(report.frames_at_most, 'frame')}"
        + (f"; {counted(in_archives, 'video')} in archives may have more" if in_archives else ""),
        describe_actors(share),
        f"memory about {need.memory_gib:.1f} GiB; output about {human_bytes(need.output_bytes)}"
        + (f" of {human_bytes(report.free_bytes)} free" if report.free_bytes is not None else "")
        + (f"; scratch {human_bytes(need.scratch_bytes)}" if need.scratch_bytes else ""),
    ]
    return "\n".join(lines)


def describe_actors(share: Resources) -> str:
    """Who does the work."""
    if share.is_fused:
        return f"{_pool(share.decode_pool, 'actor')} × {share.fused_cpus:g} CPU for all stages"
    return (
        f"{_pool(share.decode_pool, 'decode actor')} × {share.decode_cpus:g} CPU, "
        f"{_pool(share.ran_pool, 'RAN actor')} × {share.ran_cpus:g} CPU"
        + (f" and {share.ran_gpus:g} GPU" if share.ran_gpus else "")
    )


def _pool(size: tuple[int, int], noun: str) -> str:
    fewest, most = size
    return counted(most, noun) if fewest == most else f"{fewest} to {counted(most, noun)}"


def configuration(options: dict[str, Any]) -> tuple[Any, RunConfig]:
    """The command's options as the extraction and the run's configuration."""
    from pipeline.config import Extraction
    from pipeline.detect import weights_sha256

    detector, weights = options.pop("detector"), options.pop("detector_weights")
    extraction = Extraction(
        fps=str(options.pop("fps")),
        segment_frames=options.pop("segment_frames"),
        detector=detector,
        detector_sha256=weights_sha256(detector, weights),
        min_score=options.pop("min_score"),
        min_face_px=options.pop("min_face"),
        max_faces=options.pop("max_faces"),
        detect_max_side_px=options.pop("detect_max_side"),
    )
    storage_options = parse_storage_options(options.pop("storage_options"))
    config = RunConfig(
        inputs=tuple(options.pop("inputs")),
        listed=tuple(name for file in options.pop("from_files") for name in read_list(file)),
        detector_weights=weights,
        decode_memory_gib=options.pop("decode_memory"),
        storage_options=storage_options,
        **options,
    )
    return extraction, config


def dataset_configuration(options: dict[str, Any]) -> RunConfig:
    """The configuration of a command whose input is the dataset itself."""
    return RunConfig(
        inputs=(options["output"],),
        decode_memory_gib=options.pop("decode_memory"),
        storage_options=parse_storage_options(options.pop("storage_options")),
        **options,
    )


def check_error_rate(summary: Summary, config: RunConfig) -> int:
    """Exit code 0, or ErrorRateError when more sources failed than the user accepts."""
    if summary.sources and summary.failed_sources / summary.sources > config.max_error_rate:
        output = quote(without_credentials(config.output))
        model = f" with model {summary.model_id}" if summary.models > 1 else ""
        raise ErrorRateError(
            f"finished, but {summary.failed_sources} of {summary.sources} sources have errors{model}, "
            f"over --max-error-rate {config.max_error_rate:g}; see `ran-pipeline errors {output}`"
        )
    return 0


def _rate(items_per_s: float | None) -> str:
    return "-" if items_per_s is None else f"{items_per_s:.1f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.0%}"


def describe(summary: Summary) -> str:
    """The summary for people."""
    lines = [
        f"{summary.status}: {summary.segments_done:,} of {counted(summary.segments_planned, 'segment')}"
        + (f" ({summary.segments_already_done:,} done before)" if summary.segments_already_done else "")
        + f" of {counted(summary.sources, 'source')} in {human_seconds(summary.elapsed_s)}"
        + (f", of which {human_seconds(summary.startup_s)} start-up" if summary.startup_s else ""),
        f"{counted(summary.sampled_frames, 'frame')} sampled, {counted(summary.faces, 'face')}, "
        f"{counted(summary.failed_sources, 'source')} with errors",
    ]
    if summary.segments_left:
        lines.append(f"{counted(summary.segments_left, 'segment')} left by --limit: the same command goes on with them")
    if summary.failures:
        lines.append("failures: " + ", ".join(f"{code} {count}" for code, count in summary.failures.most_common()))
    if summary.segments_done:
        rows = [
            (name, stage["items"], _rate(stage["items_per_s"]), _percent(stage["busy_share"]))
            for name, stage in summary.stages().items()
        ]
        lines += ["", table(("stage", "items", "items/s per actor", "busy"), rows)]
        if bottleneck := summary.bottleneck():
            lines.append(f"bottleneck: {bottleneck}")
    lines.append(f"dataset: {summary.output} (model {summary.model_id}, run {summary.run_id})")
    return "\n".join(lines)
