"""What our HTML pages share: one file that needs nothing else, with no script, no request, and its pictures inside.

Names of sources, members and regions come from outside; every text goes through `escape`, and the page's own policy
forbids scripts and requests should one ever slip through.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

from PIL import Image

from jobs.deliver import deliver
from pipeline.errors import UsageError

PICTURE_PX = 144

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light; --ink: #1b1f24; --muted: #68707a; --faint: #e2e5ea; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: #f3f4f7; margin: 0 auto;
       max-width: 1100px; padding: 28px; }
section { background: #fff; border-radius: 8px; padding: 18px 22px; margin: 18px 0; overflow-x: auto; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 17px; margin: 0 0 10px; } p { margin: 6px 0; max-width: 75ch; }
.muted, th, figcaption small { color: var(--muted); font-weight: normal; } .large { font-size: 30px; }
table { border-collapse: collapse; } th, td { padding: 3px 10px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
td.name { white-space: normal; overflow-wrap: anywhere; min-width: 17em; }
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


def page(title: str, sections: Iterable[str], *, style: str = "") -> str:
    """The whole page, with our note at its end. style: rules besides the shared ones."""
    body = "\n".join(sections)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{STYLE}{style}</style>\n</head>\n<body>\n{body}\n"
        f'<p class="muted">{escape(NOTE)}</p>\n</body>\n</html>\n'
    )


def section(title: str, lines: Iterable[str]) -> str:
    """A card with a heading. Lines are HTML."""
    return f"<section><h2>{escape(title)}</h2>{''.join(lines)}</section>"


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Cells are HTML: what comes from outside is escaped before."""
    lines = ["".join(f"<th>{name}</th>" for name in header)]
    lines += ["".join(f"<td>{cell}</td>" for cell in row) for row in rows]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def named_table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table whose first cells are names from outside, given as they are: escaped here, and broken where too long."""
    lines = ["".join(f"<th>{name}</th>" for name in header)]
    lines += [
        f'<td class="name">{escape(str(name))}</td>{"".join(f"<td>{cell}</td>" for cell in cells)}'
        for name, *cells in rows
    ]
    return f"<table>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>"


def muted(text: str) -> str:
    """A paragraph of explanation."""
    return f'<p class="muted">{escape(text)}</p>'


def read_picture(png: bytes) -> Image.Image | None:
    """A stored crop, or None where its bytes can't be read."""
    try:
        with Image.open(io.BytesIO(png), formats=["PNG"]) as crop:
            return crop.convert("RGB")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def picture(image: Image.Image) -> str:
    """The picture, small, inside the page."""
    small = image.resize((PICTURE_PX, PICTURE_PX), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, format="JPEG", quality=88)
    return f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}">'


def crop_picture(png: bytes | None) -> str:
    """A stored crop inside the page; a grey square where there is none or it can't be read."""
    if png is None:
        return '<span class="none">no crop kept</span>'
    image = read_picture(png)
    return '<span class="none">unreadable</span>' if image is None else picture(image)


def refuse_no_page(to: str) -> None:
    """Raises UsageError for a name that no browser takes for a page."""
    if Path(to).suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--to {to}: the name must end in .html")


def deliver_page(to: str, options: dict[str, str], content: str) -> None:
    """Writes the page where the user wants it, as `deliver` does."""
    data = content.encode("utf-8", "replace")
    deliver(to, options, lambda path: path.write_bytes(data))
