"""`overlay`: a source of the dataset with what the dataset says drawn on it, as a page of moments or as a video."""

from __future__ import annotations

from pathlib import Path

import click

from jobs.contact_sheet import Moment, contact_sheet
from jobs.dataset import OpenedDataset, opened
from jobs.deliver import deliver
from jobs.moments import most_telling, nearest_to
from jobs.options import parse_storage_options, storage_option
from jobs.redecode import answers, redecode
from jobs.source_frames import SourceFrames, read_source
from pipeline.errors import UsageError
from pipeline.terminal import counted, printable
from pipeline.urls import without_credentials

MOMENTS = 6


@click.command("overlay")
@click.argument("output", metavar="OUT")
@click.argument("source", metavar="SOURCE")
@click.option("--to", required=True, metavar="FILE", help="A .png page of moments, or an .mp4 of the sampled frames.")
@click.option("--at", type=float, multiple=True, metavar="SECONDS", help="Show this moment (.png); may be repeated.")
@click.option("--model", metavar="MODEL_ID", help="Default: the newest model that has every segment.")
@storage_option
def overlay_command(
    output: str, source: str, to: str, at: tuple[float, ...], model: str | None, storage_options: tuple[str, ...]
) -> None:
    """Draw boxes, expressions and the regions' attention on SOURCE, and write it to FILE.

    SOURCE is a video, a picture, an archive, or one picture or video of an archive (archive.tar/name.jpg), by its path
    or the end of it. It is decoded again from where it was. Without --at, a page shows up to six moments that differ
    most in time and in attention. Attention over time is drawn for one video, not for an archive of several.
    """
    options = parse_storage_options(storage_options)
    kind = Path(to).suffix.lower()
    if kind not in (".png", ".mp4"):
        raise UsageError(f"--to {to}: the name must end in .png (a page) or .mp4 (a video)")
    if kind == ".mp4" and at:
        raise UsageError("--at picks the moments of a .png; an .mp4 shows every sampled frame")
    with opened(output, storage_options) as dataset:
        found = read_source(dataset, source, model)
        if kind == ".mp4":
            from jobs.overlay_video import write_video

            what = deliver(to, options, lambda path: write_video(path, found, dataset.extraction, options))
        else:
            what = deliver(to, options, lambda path: _write_page(path, dataset, found, at, options))
    click.echo(f"{without_credentials(to)}: {what} of {printable(found.uri)}", err=True)


def _write_page(
    path: Path, dataset: OpenedDataset, source: SourceFrames, at: tuple[float, ...], options: dict[str, str]
) -> str:
    chosen = nearest_to(source, at) if at else most_telling(source, MOMENTS)
    moments = [
        Moment(
            frame=frame,
            image=image,
            faces=answers(source, frame, image),
            is_of_several=not source.is_one_video,
        )
        for frame, image in redecode(chosen, dataset.extraction, options)
    ]
    if not moments:
        raise UsageError(f"no frame of {source.uri} could be decoded again")
    contact_sheet(source, moments).save(path, format="png", optimize=True)
    return counted(len(moments), "moment")
