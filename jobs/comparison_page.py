"""A comparison as one HTML page that needs nothing else (`html_page`)."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from jobs import html_page
from jobs.changed_faces import Answer, ChangedFace
from jobs.comparison import Comparison
from jobs.comparison_text import about_marked, interval, marked, only_one_has
from jobs.html_page import crop_picture, named_table, section, table
from jobs.intervals import about_intervals, about_mcnemar
from jobs.svg import interval_mark

if TYPE_CHECKING:
    from jobs.labelled_comparison import LabelledComparison

SHOWN_CLASSES = 3


def page(
    comparison: Comparison, faces: Sequence[ChangedFace], labelled: LabelledComparison | None, *, output: str
) -> str:
    """The page. output: the dataset's name, for its head."""
    sections = [_head(comparison, output)]
    if comparison.agreement and comparison.total_variation:
        sections += [_labels(labelled)] if labelled else []
        sections += [_flips(comparison), _shifts(comparison), _sources(comparison), _faces(faces)]
    return html_page.page(f"{comparison.model_a} and {comparison.model_b}", sections)


def _head(comparison: Comparison, output: str) -> str:
    lines = [
        f"<h1>Model A {escape(comparison.model_a)} and model B {escape(comparison.model_b)}</h1>",
        f'<p class="muted">{escape(output)}</p>',
    ]
    if comparison.agreement is None or comparison.total_variation is None:
        lines.append("<p>No face has an answer of both models.</p>")
    else:
        lines.append(
            f'<p><span class="large">{interval(comparison.agreement, ".1%")}</span> of faces have the same expression '
            f"from both; the mean change of the probabilities (total variation) is "
            f"{interval(comparison.total_variation, '.3f')}.</p>"
        )
    lines.append(
        f"<p>{comparison.faces} faces of {comparison.sources} sources have both answers; "
        f"{comparison.faces_only_a} have A's alone, {comparison.faces_only_b} B's alone.</p>"
    )
    notes = only_one_has(comparison) + ([about_intervals(comparison.sources)] if comparison.sources else [])
    lines += [f'<p class="muted">{escape(note)}</p>' for note in notes]
    return f"<section>{''.join(lines)}</section>"


def _labels(labelled: LabelledComparison) -> str:
    left_out = (
        f"{labelled.labels_only_a} labels are of faces of A alone, {labelled.labels_only_b} of B alone, "
        f"{labelled.labels_unknown} of faces that are not here; {labelled.unlabelled} faces have no label."
    )
    test = labelled.mcnemar
    lines = [
        f"<p>A is right on {interval(labelled.accuracy_a, '.1%')}, B on {interval(labelled.accuracy_b, '.1%')} of "
        f"{labelled.faces} labelled faces of {labelled.sources} sources; B − A {interval(labelled.difference, '+.1%')}."
        "</p>",
        f"<p>McNemar's test: {test.only_a} faces only A has right, {test.only_b} only B; p = {test.p_value:.3g}. It "
        f"{about_mcnemar(labelled.sources)}.</p>",
        table(
            ("label", "faces", "A right", "B right"),
            ((escape(row.label), row.faces, row.right_a, row.right_b) for row in labelled.by_label),
        ),
        *(
            f'<p class="muted">{escape(line)}</p>'
            for line in (about_intervals(labelled.sources), left_out, *labelled.notes)
        ),
    ]
    return section("With labels", lines)


def _flips(comparison: Comparison) -> str:
    rows = []
    for index, (name, counts) in enumerate(zip(comparison.expressions, comparison.flips, strict=True)):
        total = sum(counts)
        cells = []
        for column, count in enumerate(counts):
            kept = ' class="kept"' if column == index else ""
            colour = "104, 112, 122" if column == index else "236, 96, 12"
            tint = f' style="background: rgba({colour}, {0.85 * count / total:.2f})"' if count else ""
            cells.append(f"<td{kept}{tint}>{count or '·'}</td>")
        share = f"{counts[index] / total:.0%}" if total else ""
        rows.append(f"<tr><td>{escape(name)}</td>{''.join(cells)}<td>{total}</td><td>{share}</td></tr>")
    head = "".join(f"<th>{escape(name)}</th>" for name in ("A says", *comparison.expressions, "all", "kept"))
    note = '<p class="muted">Rows: what A says. Columns: what B says of the same faces. Orange: changed.</p>'
    return section("Answers that changed", [f"<table><tr>{head}</tr>{''.join(rows)}</table>", note])


def _shifts(comparison: Comparison) -> str:
    ends = [
        abs(end) for each in comparison.shifts for end in (each.shift.value, each.shift.low, each.shift.high) if end
    ]
    most = max(ends, default=0.0) or 1.0
    rows = (
        (
            escape(marked(each)),
            f"{each.mean_a:.3f}",
            f"{each.mean_b:.3f}",
            interval(each.shift, "+.3f"),
            interval_mark(each.shift.value, each.shift.low, each.shift.high, most),
        )
        for each in comparison.shifts
    )
    notes = [f"Mean of B − A over all faces; the strip spans −{most:.3f} to +{most:.3f}.", *about_marked(comparison)]
    below = (f'<p class="muted">{escape(note)}</p>' for note in notes)
    return section("Shifts", [table(("column", "mean A", "mean B", "B − A", ""), rows), *below])


def _sources(comparison: Comparison) -> str:
    rows = (
        (row.source_uri, row.faces, row.faces - row.same, f"{row.agreement:.0%}", f"{row.total_variation:.3f}")
        for row in comparison.by_source
    )
    lines = [named_table(("source", "faces", "changed", "agreement", "change"), rows)]
    if comparison.agreement_quantiles and comparison.sources > 1:
        least, quarter, median, three_quarters, most = comparison.agreement_quantiles
        lines.append(
            f'<p class="muted">{len(comparison.by_source)} of {comparison.sources} sources, those with most changed '
            f"faces. Over all sources agreement goes from {least:.0%} to {most:.0%}; half of them lie between "
            f"{quarter:.0%} and {three_quarters:.0%}, the median is {median:.0%}.</p>"
        )
    return section("By source", lines)


def _faces(faces: Sequence[ChangedFace]) -> str:
    if not faces:
        return section("Most changed faces", ["<p>No face's probabilities changed.</p>"])
    figures = "".join(
        f"<figure>{crop_picture(face.png)}<figcaption>{_answer('A', face.a)}{_answer('B', face.b)}"
        f"<small>change {face.total_variation:.3f}<br>{escape(face.source_uri)}<br>"
        f"{escape(', '.join(part for part in (face.where, _box(face)) if part))}</small></figcaption></figure>"
        for face in faces
    )
    return section("Most changed faces", [f'<div class="faces">{figures}</div>'])


def _answer(model: str, answer: Answer) -> str:
    best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]
    listed = ", ".join(f"{name} {share:.0%}" for name, share in best)
    return f'<span class="answer"><b>{model}</b> {escape(listed)}</span>'


def _box(face: ChangedFace) -> str:
    x, y, width, height = face.box
    return f"box {width:.0f} × {height:.0f} at {x:.0f}, {y:.0f}"
