"""A comparison as one HTML page that needs nothing else: no script, no request, pictures inside.

Names of sources, members and regions come from outside; every text goes through `escape`, and the page's own policy
forbids scripts and requests should one ever slip through.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from PIL import Image

from jobs.changed_faces import Answer, ChangedFace
from jobs.comparison import Comparison, Shift
from jobs.comparison_text import about_marked, interval, marked, only_one_has
from jobs.intervals import about_intervals, about_mcnemar

if TYPE_CHECKING:
    from jobs.labelled_comparison import LabelledComparison

CROP_PX, SHOWN_CLASSES = 144, 3
CHART_PX, ROW_PX = 260, 18

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --muted: #68707a; --faint: #e2e5ea; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: #f3f4f7; margin: 0 auto;
       max-width: 1100px; padding: 28px; }
section { background: #fff; border-radius: 8px; padding: 18px 22px; margin: 18px 0; overflow-x: auto; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 0 0 10px; } p { margin: 6px 0; max-width: 75ch; }
.muted, th, figcaption small { color: var(--muted); font-weight: normal; } .large { font-size: 30px; }
table { border-collapse: collapse; } th, td { padding: 3px 10px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } td.name { white-space: normal; overflow-wrap: anywhere; }
td.kept { outline: 1px solid var(--faint); outline-offset: -1px; }
.faces { display: grid; grid-template-columns: repeat(auto-fill, minmax(320px, 1fr)); gap: 16px; }
figure { margin: 0; display: flex; gap: 12px; } figcaption { min-width: 0; overflow-wrap: anywhere; }
figure img, .none { width: 144px; height: 144px; flex: none; border-radius: 4px; }
.none { background: var(--faint); color: var(--muted); display: grid; place-items: center; }
.answer { display: block; } svg { display: block; }
"""
NOTE = (
    "Expressions are what an annotator would report seeing, not what a person feels. Attention is how much each region "
    "of the face counted for the answer; it is not proof that something is covered."
)


def page(
    comparison: Comparison, faces: Sequence[ChangedFace], labelled: LabelledComparison | None, *, output: str
) -> str:
    """The page. output: the dataset's name, for its head."""
    sections = [_head(comparison, output)]
    if comparison.agreement and comparison.total_variation:
        sections += [_labels(labelled)] if labelled else []
        sections += [_flips(comparison), _shifts(comparison), _sources(comparison), _faces(faces)]
    body = "\n".join(sections)
    title = escape(f"{comparison.model_a} and {comparison.model_b}")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="muted">{escape(NOTE)}</p>\n</body>\n</html>\n'
    )


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
        _table(
            ("label", "faces", "A right", "B right"),
            ((escape(row.label), row.faces, row.right_a, row.right_b) for row in labelled.by_label),
        ),
        *(
            f'<p class="muted">{escape(line)}</p>'
            for line in (about_intervals(labelled.sources), left_out, *labelled.notes)
        ),
    ]
    return _section("With labels", lines)


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
    return _section("Answers that changed", [f"<table><tr>{head}</tr>{''.join(rows)}</table>", note])


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
            _interval_mark(each, most),
        )
        for each in comparison.shifts
    )
    notes = [f"Mean of B − A over all faces; the strip spans −{most:.3f} to +{most:.3f}.", *about_marked(comparison)]
    below = (f'<p class="muted">{escape(note)}</p>' for note in notes)
    return _section("Shifts", [_table(("column", "mean A", "mean B", "B − A", ""), rows), *below])


def _interval_mark(each: Shift, most: float) -> str:
    def x(value: float) -> str:
        return f"{CHART_PX / 2 + value / most * (CHART_PX / 2 - 6):.1f}"

    low = each.shift.value if each.shift.low is None else each.shift.low
    high = each.shift.value if each.shift.high is None else each.shift.high
    middle = ROW_PX / 2
    return (
        f'<svg width="{CHART_PX}" height="{ROW_PX}" role="img" aria-label="{each.shift.value:+.3f}">'
        f'<line x1="{x(0)}" x2="{x(0)}" y1="0" y2="{ROW_PX}" stroke="#c5cad1"/>'
        f'<line x1="{x(low)}" x2="{x(high)}" y1="{middle}" y2="{middle}" stroke="#ec600c" stroke-width="3"/>'
        f'<circle cx="{x(each.shift.value)}" cy="{middle}" r="4" fill="#ec600c"/></svg>'
    )


def _sources(comparison: Comparison) -> str:
    rows = (
        (row.source_uri, row.faces, row.faces - row.same, f"{row.agreement:.0%}", f"{row.total_variation:.3f}")
        for row in comparison.by_source
    )
    listed = "".join(
        f'<tr><td class="name">{escape(name)}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>'
        for name, *cells in rows
    )
    head = "".join(f"<th>{name}</th>" for name in ("source", "faces", "changed", "agreement", "change"))
    lines = [f"<table><tr>{head}</tr>{listed}</table>"]
    if comparison.agreement_quantiles and comparison.sources > 1:
        least, quarter, median, three_quarters, most = comparison.agreement_quantiles
        lines.append(
            f'<p class="muted">{len(comparison.by_source)} of {comparison.sources} sources, those with most changed '
            f"faces. Over all sources agreement goes from {least:.0%} to {most:.0%}; half of them lie between "
            f"{quarter:.0%} and {three_quarters:.0%}, the median is {median:.0%}.</p>"
        )
    return _section("By source", lines)


def _faces(faces: Sequence[ChangedFace]) -> str:
    if not faces:
        return _section("Most changed faces", ["<p>No face's probabilities changed.</p>"])
    figures = "".join(
        f"<figure>{_picture(face)}<figcaption>{_answer('A', face.a)}{_answer('B', face.b)}"
        f"<small>change {face.total_variation:.3f}<br>{escape(face.source_uri)}<br>"
        f"{escape(', '.join(part for part in (face.where, _box(face)) if part))}</small></figcaption></figure>"
        for face in faces
    )
    return _section("Most changed faces", [f'<div class="faces">{figures}</div>'])


def _answer(model: str, answer: Answer) -> str:
    best = sorted(answer.probabilities.items(), key=lambda item: -item[1])[:SHOWN_CLASSES]
    listed = ", ".join(f"{name} {share:.0%}" for name, share in best)
    return f'<span class="answer"><b>{model}</b> {escape(listed)}</span>'


def _box(face: ChangedFace) -> str:
    x, y, width, height = face.box
    return f"box {width:.0f} × {height:.0f} at {x:.0f}, {y:.0f}"


def _picture(face: ChangedFace) -> str:
    """The crop, small, inside the page; a grey square where there is none or it can't be read."""
    if face.png is not None:
        try:
            with Image.open(io.BytesIO(face.png), formats=["PNG"]) as crop:
                small = crop.convert("RGB").resize((CROP_PX, CROP_PX), Image.Resampling.LANCZOS)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return '<span class="none">unreadable</span>'
        data = io.BytesIO()
        small.save(data, format="JPEG", quality=88)
        return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'
    return '<span class="none">no crop kept</span>'


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Cells are HTML: what comes from outside is escaped before."""
    lines = ["".join(f"<th>{name}</th>" for name in header)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def _section(title: str, lines: Iterable[str]) -> str:
    return f"<section><h2>{escape(title)}</h2>{''.join(lines)}</section>"
