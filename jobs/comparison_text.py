"""A comparison in words: the report for terminals, and the sentences that the page has too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from jobs.changed_faces import ChangedFace
from jobs.comparison import Comparison, Estimate, Shift
from jobs.intervals import about_intervals, about_mcnemar
from jobs.text import table

if TYPE_CHECKING:
    from jobs.labelled_comparison import LabelledComparison


def described(comparison: Comparison, faces: Sequence[ChangedFace], labelled: LabelledComparison | None) -> str:
    """The comparison for people."""
    lines = [
        f"A {comparison.model_a}, B {comparison.model_b}: {comparison.faces} faces of {comparison.sources} sources "
        f"have both answers, {comparison.faces_only_a} A's alone, {comparison.faces_only_b} B's alone"
    ]
    if comparison.agreement is None or comparison.total_variation is None:
        return f"{lines[0]}\nnothing to compare: run both models over the same inputs"
    lines += [
        f"same expression: {interval(comparison.agreement, '.1%')}",
        f"mean change of the probabilities (total variation): {interval(comparison.total_variation, '.3f')}",
    ]
    lines += [about_intervals(comparison.sources), *only_one_has(comparison)]
    if labelled:
        lines += ["", _described_labels(labelled)]
    said = [(name, *counts, sum(counts)) for name, counts in zip(comparison.expressions, comparison.flips, strict=True)]
    lines += ["", table(("A \\ B", *comparison.expressions, "all"), said)]
    shifts = [(marked(s), s.mean_a, s.mean_b, interval(s.shift, "+.3f")) for s in comparison.shifts]
    lines += ["", table(("column", "mean A", "mean B", "B - A"), shifts), *about_marked(comparison)]
    by_source = [(s.source_uri, s.faces, s.faces - s.same, f"{s.agreement:.0%}") for s in comparison.by_source]
    lines += ["", table(("source", "faces", "changed", "agreement"), by_source)]
    if len(by_source) < comparison.sources:
        lines.append(f"{len(by_source)} of {comparison.sources} sources, those with most changed faces")
    if faces:
        lines += ["", table(("change", "A", "B", "source", "where", "box"), [_face(face) for face in faces])]
    return "\n".join(lines)


def interval(estimate: Estimate, form: str) -> str:
    """Such as 81.2% (70.1% to 90.3%)."""
    if estimate.low is None or estimate.high is None:
        return f"{estimate.value:{form}}"
    return f"{estimate.value:{form}} ({estimate.low:{form}} to {estimate.high:{form}})"


def marked(shift: Shift) -> str:
    """The column's name, with a star where its figures are not comparable between the models."""
    return shift.column if shift.comparable else f"{shift.column} *"


def about_marked(comparison: Comparison) -> list[str]:
    """What the stars mean; nothing where there is none."""
    starred = [shift.column for shift in comparison.shifts if not shift.comparable]
    lines = []
    if "entropy" in starred:
        lines.append("* entropy is over each model's own classes, and these differ: its means are not comparable.")
    if any(name.startswith("attention_") for name in starred):
        lines.append(
            "* attention is shared out over each model's own regions, and these differ: its means are not comparable."
        )
    return lines


def only_one_has(comparison: Comparison) -> list[str]:
    """A line per model with classes or regions that the other lacks."""
    lines = []
    for model, classes, regions in (
        ("A", comparison.classes_only_a, comparison.regions_only_a),
        ("B", comparison.classes_only_b, comparison.regions_only_b),
    ):
        if classes or regions:
            lines.append(f"Only {model} has {', '.join([*classes, *(f'region {name}' for name in regions)])}.")
    return lines


def _described_labels(labelled: LabelledComparison) -> str:
    test = labelled.mcnemar
    lines = [
        f"{labelled.faces} labelled faces of {labelled.sources} sources: "
        f"A right {interval(labelled.accuracy_a, '.1%')}, "
        f"B right {interval(labelled.accuracy_b, '.1%')}, B - A {interval(labelled.difference, '+.1%')}",
        about_intervals(labelled.sources),
        f"McNemar's test: only A right {test.only_a}, only B right {test.only_b}, p = {test.p_value:.3g} "
        f"({about_mcnemar(labelled.sources)})",
        f"labels of faces of A alone {labelled.labels_only_a}, of B alone {labelled.labels_only_b}, of neither "
        f"{labelled.labels_unknown}; faces without a label {labelled.unlabelled}",
        *(f"note: {note}" for note in labelled.notes),
        "",
        table(
            ("label", "faces", "A right", "B right"),
            [(row.label, row.faces, row.right_a, row.right_b) for row in labelled.by_label],
        ),
    ]
    return "\n".join(lines)


def _face(face: ChangedFace) -> tuple[object, ...]:
    answers = (f"{answer.expression} {answer.confidence:.0%}" for answer in (face.a, face.b))
    box = " ".join(f"{value:.0f}" for value in face.box)
    return (face.total_variation, *answers, face.source_uri, face.where, box)
