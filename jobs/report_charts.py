"""The report's tables and charts, each a section of its page."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jobs.drawing import region_label
from jobs.html_page import muted, named_table, section, table
from jobs.report_figures import UNSURE_BELOW, Figures, SourceFigures
from jobs.report_videos import VideoFigures
from jobs.svg import ACCENT, GREY, GROOVE, Slice, bar, histogram, shares_over_time

#: Okabe and Ito's colours, which colour-blind readers can tell apart; neutral is grey.
COLOURS = {
    "neutral": "#aab1ba", "happiness": "#e69f00", "surprise": "#56b4e9", "sadness": "#0072b2", "anger": "#d55e00",
    "disgust": "#009e73", "fear": "#4b3f72", "contempt": "#cc79a7",
}  # fmt: skip
MORE, LESS = "236, 96, 12", "0, 114, 178"
TICKS = 5
EXACT_BELOW_S = 60


def expressions(figures: Figures) -> str:
    """Shares of faces and mean probabilities, side by side."""
    rows = (
        (
            escape(each.name),
            f"{each.faces:,}",
            f"{each.share:.1%}",
            bar(each.share, colour=COLOURS[each.name]),
            f"{each.mean_probability:.1%}",
            bar(each.mean_probability, colour=COLOURS[each.name]),
        )
        for each in sorted(figures.expressions, key=lambda each: (-each.faces, -each.mean_probability))
    )
    notes = [
        "Share of faces: each face counts for its most probable expression alone. Mean probability: each face counts "
        "for every expression as much as the model gives it, so that mixtures are seen; where the two differ, many "
        "faces lie between expressions.",
        "Faces are counted, not people and not time: who is on screen for long has many faces.",
    ]
    if figures.totals.largest_share is not None and figures.totals.sources > 1:
        notes.append(f"The source with most faces has {figures.totals.largest_share:.0%} of them.")
    header = ("expression", "faces", "share of faces", "", "mean probability", "")
    return section("What was seen", [table(header, rows), *map(muted, notes)])


def confidence(figures: Figures) -> str:
    """How sure the model was, by tenths."""
    total, count = figures.totals.faces, len(figures.confidence_bins)
    shares = [faces / total for faces in figures.confidence_bins]
    colours = [GREY if (index + 0.5) / count < UNSURE_BELOW else ACCENT for index in range(count)]
    label = ", ".join(f"{index / count:.0%} to {(index + 1) / count:.0%}: {s:.1%}" for index, s in enumerate(shares))
    under = "".join(f"<span>{100 * index // count}–{100 * (index + 1) // count}</span>" for index in range(count))
    above = "".join(f"<span>{share:.0%}</span>" for share in shares)
    lines = [
        f"<p>{figures.unsure / total:.1%} of faces got no expression at {UNSURE_BELOW:.0%} or more.</p>",
        f'<div class="bins">{above}</div>{histogram(shares, colours, label)}<div class="bins">{under}</div>',
        muted(
            "Share of faces by the probability, in percent, of their most probable expression. It says how sure the "
            "model is, which is not how often it is right: its model card has both."
        ),
    ]
    return section("How sure the model was", lines)


def attention(figures: Figures) -> str:
    """Which regions counted more or less, by expression."""
    said = [each for each in figures.expressions if each.faces]
    differences = [abs(each.attention[name] - mean) for each in said for name, mean in figures.attention.items()]
    most = max(differences, default=0.0) or 1.0
    rows = []
    for each in sorted(said, key=lambda each: -each.faces):
        cells = "".join(
            _heat(each.attention[name], each.attention[name] - mean, most) for name, mean in figures.attention.items()
        )
        rows.append(f"<tr><td>{escape(each.name)}</td><td>{each.faces:,}</td>{cells}</tr>")
    means = "".join(f"<td>{mean:.1%}</td>" for mean in figures.attention.values())
    rows.append(f"<tr><td>all</td><td>{figures.totals.faces:,}</td>{means}</tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", "faces", *map(region_label, figures.attention)))
    note = (
        "Mean weight of each region over the faces of an expression; a row sums to 100%. Orange: counted more than "
        "over all faces, blue: less. Left and right are those of the picture. Means over few faces say little."
    )
    return section(
        "What each region counted", [f'<table class="heat"><tr>{head}</tr>{"".join(rows)}</table>', muted(note)]
    )


def _heat(weight: float, difference: float, most: float) -> str:
    colour = MORE if difference > 0 else LESS
    return f'<td style="background: rgba({colour}, {0.75 * abs(difference) / most:.2f})">{weight:.1%}</td>'


def sources(figures: Figures) -> str:
    """The largest sources, one a row."""
    rows = ((each.source_uri, *_source_cells(each)) for each in figures.by_source)
    header = ("source", "kind", "frames", "without a face", "faces", "most frequent", "", "confidence", "errors")
    lines = [named_table(header, rows)]
    if len(figures.by_source) < figures.totals.sources:
        lines.append(
            muted(f"{len(figures.by_source):,} of {figures.totals.sources:,} sources, those with most frames.")
        )
    return section("By source", lines)


def _source_cells(each: SourceFigures) -> tuple[str, ...]:
    return (
        escape(each.kind),
        f"{each.frames:,}",
        _share(each.share_without_face),
        f"{each.faces:,}",
        escape(each.expression or "–"),
        "" if each.expression is None else _share(each.expression_share),
        _share(each.confidence),
        str(each.errors or ""),
    )


def videos(videos: Sequence[VideoFigures], classes: Sequence[str]) -> str:
    """Their probabilities over time."""
    key = "".join(f'<span><i style="background: {COLOURS[name]}"></i>{name}</span>' for name in classes)
    key += f'<span><i style="background: {GROOVE}"></i>no face</span>'
    note = (
        "Mean probabilities of the faces in each slice of time. The coloured part is as high as the share of its "
        "sampled frames that have a face; where it is white, no frame was sampled or none could be read."
    )
    return section(
        "Over time", [f'<div class="key">{key}</div>', *(_video(each, classes) for each in videos), muted(note)]
    )


def _video(video: VideoFigures, classes: Sequence[str]) -> str:
    first, last = video.slices[0].start_s, video.slices[-1].end_s
    span = last - first or 1.0
    slices = [
        Slice(
            start=(each.start_s - first) / span,
            end=(each.end_s - first) / span,
            height=each.frames_with_face / each.frames,
            shares=[each.probabilities[name] for name in classes] if each.faces else [],
        )
        for each in video.slices
    ]
    name = video.source_uri if video.member is None else f"{video.source_uri}/{video.member}"
    ticks = "".join(f"<span>{_clock(first + span * index / (TICKS - 1), span)}</span>" for index in range(TICKS))
    chart = shares_over_time(slices, [COLOURS[each] for each in classes], f"probabilities over time, {name}")
    return f'<div class="video"><b>{escape(name)}</b>{chart}<div class="ticks">{ticks}</div></div>'


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.0%}"


def _clock(seconds: float, span_s: float) -> str:
    """As exact as ticks on so long an axis need."""
    if span_s < EXACT_BELOW_S:
        return f"{seconds:.1f} s" if span_s >= TICKS else f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
