"""The report's faces: pictures with their answers, where crops were kept."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from jobs.drawing import region_label
from jobs.html_page import crop_picture, muted, named_table, picture, section
from jobs.report_faces import ShownFace
from jobs.text import moment

SHOWN_CLASSES, SHOWN_REGIONS = 3, 3
NOTE = (
    "Of each expression the faces with the highest confidence, and some with the lowest, from different sources and "
    "moments where there are any."
)
NO_CROPS = (
    "No pictures of faces were kept: run with --keep-crops to see them here, or draw them with "
    "`ran-pipeline overlay OUT SOURCE --at SECONDS`."
)


def faces_to_look_at(faces: Sequence[ShownFace], keeps_crops: bool) -> str:
    """Pictures with their answers; where none were kept, a table of where to look."""
    if not keeps_crops:
        rows = ((face.source_uri, *_face_cells(face)) for face in faces)
        header = ("source", "where", "expression", "confidence", "", "counted most")
        return section("Faces to look at", [f"<p>{escape(NO_CROPS)}</p>", muted(NOTE), named_table(header, rows)])
    lines = [muted(f"{NOTE} Right: the same face, the more orange the more weight its regions had there.")]
    for expression in dict.fromkeys(face.expression for face in faces):
        lines.append(f"<h3>{escape(expression)}</h3>")
        figures = "".join(_figure(face) for face in faces if face.expression == expression)
        lines.append(f'<div class="faces">{figures}</div>')
    return section("Faces to look at", lines)


def _face_cells(face: ShownFace) -> tuple[str, ...]:
    which = "" if face.is_clear else "least sure"
    where = f'<span class="name">{escape(moment(face.member, face.timestamp))}</span>'
    return where, escape(face.expression), f"{face.confidence:.0%}", which, escape(_most(_labelled(face)))


def _figure(face: ShownFace) -> str:
    where = ", ".join(part for part in (face.source_uri, moment(face.member, face.timestamp)) if part)
    tint = picture(face.tint) if face.tint else ""
    unsure = "" if face.is_clear else "<small>least sure</small>"
    return (
        f"<figure>{crop_picture(face.png)}{tint}<figcaption>{unsure}"
        f'<span class="answer">{escape(_most(face.probabilities, SHOWN_CLASSES))}</span>'
        f"<small>counted most: {escape(_most(_labelled(face)))}<br>{escape(where)}</small></figcaption></figure>"
    )


def _labelled(face: ShownFace) -> dict[str, float]:
    return {region_label(name): weight for name, weight in face.attention.items()}


def _most(shares: dict[str, float], count: int = SHOWN_REGIONS) -> str:
    best = sorted(shares.items(), key=lambda item: -item[1])[:count]
    return ", ".join(f"{name} {share:.0%}" for name, share in best)
