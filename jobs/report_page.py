"""A report as one HTML page that needs nothing else (`html_page`)."""

from __future__ import annotations

import posixpath
from html import escape
from typing import TYPE_CHECKING

from jobs import html_page
from jobs.html_page import muted, named_table, section, table
from jobs.inspect import where_in_source
from jobs.report_charts import attention, confidence, expressions, sources, videos
from jobs.report_figures import Figures, Totals
from jobs.report_gallery import faces_to_look_at
from jobs.report_origin import Origin
from jobs.text import human_seconds
from pipeline.terminal import counted

if TYPE_CHECKING:
    from jobs.report import Report

STYLE = """
.facts { display: flex; flex-wrap: wrap; gap: 10px 26px; margin: 14px 0; } .facts span { display: block; }
.key { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 8px 0; }
.key i { display: inline-block; width: 11px; height: 11px; margin-right: 5px; border-radius: 2px; }
.wide { width: 100%; height: 76px; } .video { margin: 16px 0; } .video b { font-weight: 600; overflow-wrap: anywhere; }
.ticks { display: flex; justify-content: space-between; color: var(--muted); font-size: 13px; }
.heat td:not(:first-child) { min-width: 62px; } .heat tr:last-child td { border-top: 1px solid var(--faint); }
.bins { display: flex; width: 480px; color: var(--muted); font-size: 12px; }
.bins span { flex: 1; text-align: center; }
.faces { grid-template-columns: repeat(auto-fill, minmax(490px, 1fr)); } h3 { font-size: 15px; margin: 18px 0 8px; }
td.name { min-width: 330px; }
span.name { display: inline-block; max-width: 52ch; text-align: left; white-space: normal; overflow-wrap: anywhere; }
td.left { text-align: left; white-space: normal; overflow-wrap: anywhere; }
"""
USES = (
    "Meant for research on faces in media, with people who agreed or material that is public, and for finding footage.",
    "Not for decisions about a person, and not at work or in education, where Regulation (EU) 2024/1689, Article "
    "5(1)(f), prohibits inferring emotions, medical and safety reasons aside; where its use is lawful, tell the people "
    "who are exposed to it (Article 50(3)).",
)


def page(report: Report) -> str:
    """The page. Parts that a dataset has nothing for are left out, or say so in a line."""
    figures = report.figures
    sections = [_head(report.origin, figures)]
    if figures.totals.faces:
        sections += [expressions(figures), confidence(figures), attention(figures)]
    if figures.by_source:
        sections.append(sources(figures))
    if report.videos:
        sections.append(videos(report.videos, report.columns.classes))
    if report.faces:
        sections.append(faces_to_look_at(report.faces, report.keeps_crops))
    if figures.errors:
        sections.append(_errors(figures))
    sections.append(section("Use", [f"<p>{escape(line)}</p>" for line in USES]))
    return html_page.page(f"Report on {_name(report.origin)}", sections, style=STYLE)


def _name(origin: Origin) -> str:
    return posixpath.basename(origin.output.rstrip("/")) or origin.output


def _head(origin: Origin, figures: Figures) -> str:
    totals = figures.totals
    lines = [f"<h1>Expressions in {escape(_name(origin))}</h1>", muted(origin.output)]
    without = totals.share_without_face
    facts = [
        (f"{totals.faces:,}", "faces"),
        (f"{totals.frames:,}", "sampled frames"),
        ("–" if without is None else f"{without:.1%}", "of frames without a face"),
        (f"{totals.sources:,}", _kinds(totals)),
    ]
    facts += (
        [(human_seconds(totals.video_s), f"looked at in {counted(totals.videos, 'video')}")] if totals.videos else []
    )
    codes = "".join(
        f"{', ' if index else ': '}{each.sources:,} {each.code}" for index, each in enumerate(figures.errors)
    )
    facts += [(f"{totals.sources_with_errors:,}", f"sources with errors{codes}")]
    shown = (
        f'<span><span class="large">{value}</span><span class="muted">{escape(name)}</span></span>'
        for value, name in facts
    )
    lines.append(f'<div class="facts">{"".join(shown)}</div>')
    if not totals.faces:
        found = "No face was found." if totals.frames_read else "Nothing was read yet that could show a face."
        lines.append(f"<p>{found}</p>")
    if totals.frames > totals.frames_read:
        lines.append(f"<p>{counted(totals.frames - totals.frames_read, 'sampled frame')} could not be read.</p>")
    about = "".join(
        f'<tr><td class="muted">{name}</td><td class="left">{escape(v)}</td></tr>' for name, v in _about(origin)
    )
    lines.append(f"<table>{about}</table>")
    return f"<section>{''.join(lines)}</section>"


def _kinds(totals: Totals) -> str:
    named = ", ".join(
        f"{count:,} unknown" if kind == "unknown" else counted(count, kind) for kind, count in totals.kinds.items()
    )
    return f"sources: {named}" if named else "sources"


def _about(origin: Origin) -> list[tuple[str, str]]:
    """What is said of model, runs and extraction, by name."""
    model = "none yet"
    if origin.model_id:
        named = f"{origin.model_name}, version {origin.model_version}, " if origin.model_name else ""
        given = f" (given as {origin.model_path})" if origin.model_path and not origin.model_name else ""
        model = f"{named}model_id {origin.model_id}{given}"
    rows = [("model", model)]
    if origin.other_models:
        rows.append(("other models", f"{', '.join(origin.other_models)}: have rows here too, and are not counted"))
    if origin.runs:
        times = [_clock_time(each) for each in (origin.first_run, origin.last_run) if each]
        began = " and ".join(dict.fromkeys(times))
        ended = f"; the last ended {_clock_time(origin.ended)}" if origin.ended else ""
        rows.append(("runs", f"{origin.runs}, begun {began}{ended}" if began else str(origin.runs)))
    if origin.unfinished_runs:
        unfinished = ", ".join(origin.unfinished_runs)
        rows.append(("not ended", f"{unfinished}: at work when this page was made, or killed; run again to go on"))
    made = origin.extraction
    rate = "every frame" if made["fps"] == "all" else f"{made['fps']} frames a second"
    rows.append(
        (
            "extraction",
            f"{rate}; {made['detector']}, score from {made['min_score']}, faces from {made['min_face_px']} px, at most "
            f"{made['max_faces']} a frame",
        )
    )
    rows.append(("this page", f"made {_clock_time(origin.made_at)}"))
    return rows


def _errors(figures: Figures) -> str:
    codes = (
        (escape(each.code), escape(each.meaning), f"{each.sources:,}", f"{each.segments:,}") for each in figures.errors
    )
    rows = (
        (
            where_in_source(row),
            escape(row["error_code"] or ""),
            escape(row["status"]),
            f'<span class="name">{escape(row["error_message"] or "")}</span>',
        )
        for row in figures.error_rows
    )
    lines = [table(("code", "meaning", "sources", "segments"), codes), "<br>"]
    lines.append(named_table(("where", "code", "status", "what"), rows))
    segments = sum(each.segments for each in figures.errors)
    if len(figures.error_rows) < segments:
        lines.append(muted(f"The first {len(figures.error_rows):,} of {segments:,}; `ran-pipeline errors` has all."))
    return section("Errors", lines)


def _clock_time(iso: str) -> str:
    return f"{iso[:16].replace('T', ' ')} UTC"
