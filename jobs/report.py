"""`report`: what a dataset shows, as one page that opens anywhere."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

import click

from jobs.dataset import OpenedDataset, opened
from jobs.html_page import deliver_page, refuse_no_page
from jobs.model_columns import ModelColumns, model_columns
from jobs.options import json_option, parse_storage_options, storage_option
from jobs.report_faces import ShownFace, shown_faces
from jobs.report_figures import Figures, figures
from jobs.report_origin import Origin, origin
from jobs.report_page import page
from jobs.report_videos import VideoFigures, videos_over_time
from pipeline.errors import UsageError
from pipeline.terminal import counted
from pipeline.urls import without_credentials


@dataclass(frozen=True, kw_only=True)
class Report:
    """Everything that the page shows. columns: what the model answers. keeps_crops: whether any picture was kept."""

    origin: Origin
    columns: ModelColumns
    figures: Figures
    videos: list[VideoFigures]
    faces: list[ShownFace]
    keeps_crops: bool

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        totals = asdict(self.figures.totals) | {"share_without_face": self.figures.totals.share_without_face}
        return {
            **asdict(self.origin),
            "classes": list(self.columns.classes),
            "regions": list(self.columns.regions),
            **asdict(self.figures),
            "totals": totals,
            "videos": [asdict(video) for video in self.videos],
            "faces": [face.to_json() for face in self.faces],
        }


@click.command("report")
@click.argument("output", metavar="OUT")
@click.option("--to", metavar="FILE", help="The page: an .html file, may be an s3:// URL.")
@click.option("--model", metavar="MODEL_ID", help="Default: the newest model that covers every segment.")
@click.option("--sources", type=click.IntRange(0), default=20, show_default=True, help="Largest sources to list.")
@storage_option
@json_option
def report_command(
    output: str,
    to: str | None,
    model: str | None,
    sources: int,
    storage_options: tuple[str, ...],
    as_json: bool,
) -> None:
    """Sum up what is in OUT: expressions, attention, sources over time, faces to look at, errors.

    The page needs no network and nothing beside it. --json prints the same numbers. Pictures of faces are shown where
    they were kept (`run --keep-crops`).
    """
    if to is not None:
        refuse_no_page(to)
    elif not as_json:
        raise UsageError("say where the page goes, --to report.html, or take the numbers with --json")
    with opened(output, storage_options, model=model) as dataset, dataset.bounded():
        dataset.execute("SET preserve_insertion_order = false")
        report = dataset.following(lambda: read_report(dataset, sources=sources))
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    if to is not None:
        deliver_page(to, parse_storage_options(storage_options), page(report))
        totals, crops = report.figures.totals, sum(face.png is not None for face in report.faces)
        click.echo(
            f"{without_credentials(to)}: {counted(totals.faces, 'face')} of {counted(totals.sources, 'source')}, "
            f"{crops:,} shown {'as a picture' if crops == 1 else 'as pictures'}",
            err=True,
        )


def read_report(dataset: OpenedDataset, *, sources: int = 20) -> Report:
    """Of the model that the views show; all of one state of the log within `OpenedDataset.following`."""
    columns = model_columns(dataset, dataset.model or "")
    numbers = figures(dataset, columns, sources=sources)
    return Report(
        origin=origin(dataset),
        columns=columns,
        figures=numbers,
        videos=videos_over_time(dataset, columns, [source.source_id for source in numbers.by_source]),
        faces=shown_faces(dataset, columns),
        keeps_crops=bool(dataset.log.state.files("crops")),
    )
