"""Files that tell a demuxer to open other files or addresses. All of them point at the canaries."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from pipeline.errors import ErrorCode
from tests.hostile.boxes import box, edited
from tests.hostile.canaries import Canaries
from tests.hostile.case import Case, content, damaged, refused, right
from tests.hostile.originals import SIGHTS, encoded, picture, video

E = ErrorCode


def cases(canaries: Canaries) -> Iterator[Case]:
    """Each kind under its own suffix and as a video that a folder would be searched for."""
    for name, (suffix, text) in _texts(canaries).items():
        outcome = refused(E.UNSUPPORTED, E.NOT_MEDIA)
        yield Case(name=f"{name}-named", write=content(suffix, text), outcome=outcome, is_named=True)
        yield Case(name=f"{name}-as-mp4", write=content(".mp4", text), outcome=outcome)
        yield Case(name=f"{name}-as-ts", write=content(".ts", text), outcome=outcome)
    yield from _external(canaries)
    yield from _names(canaries)


def _texts(canaries: Canaries) -> dict[str, tuple[str, bytes]]:
    path, url = str(canaries.stream), canaries.url
    segment = "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:1.2,\n{}\n#EXT-X-ENDLIST\n"
    dash = (
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT1.2S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        f'<AdaptationSet mimeType="video/mp4"><Representation id="1" bandwidth="1"><BaseURL>{url}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>\n"
    )
    sdp = "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 9 RTP/AVP 96\n"
    key = f'#EXT-X-KEY:METHOD=AES-128,URI="{url}"\n#EXTINF'
    track = f"<trackList><track><location>{url}</location></track></trackList>"
    texts = {
        "m3u8-address": (".m3u8", segment.format(url)),
        "m3u8-path": (".m3u8", segment.format(path)),
        "m3u8-file-url": (".m3u8", segment.format(f"file://{path}")),
        "m3u8-after-a-mark": (".m3u8", "\ufeff\n" + segment.format(url)),
        "m3u8-concat": (".m3u8", segment.format(f"concat:{path}|{url}")),
        "m3u8-key": (".m3u8", segment.format(path).replace("#EXTINF", key)),
        "m3u": (".m3u", f"{path}\n{url}\n"),
        "ffconcat": (".ffconcat", f"ffconcat version 1.0\nfile '{path}'\n"),
        "concat": (".txt", f"file '{path}'\nfile '{url}'\n"),
        "dash": (".mpd", dash),
        "dash-plain": (".mpd", dash.partition("\n")[2]),
        "sdp": (".sdp", sdp),
        "pls": (".pls", f"[playlist]\nFile1={url}\nNumberOfEntries=1\n"),
        "smil": (".smil", f'<smil><body><video src="{url}"/></body></smil>'),
        "asx": (".asx", f'<asx version="3.0"><entry><ref href="{url}"/></entry></asx>'),
        "asf-reference": (".asx", f"[Reference]\nRef1={url}\n"),
        "xspf": (".xspf", f'<?xml version="1.0"?><playlist>{track}</playlist>'),
        "ram": (".ram", f"{url}\n"),
        "shortcut": (".url", f"[InternetShortcut]\nURL={url}\n"),
        "metadata": (".ffmeta", f";FFMETADATA1\ntitle={url}\n"),
        "avisynth": (".avs", f'DirectShowSource("{path}")\n'),
        "subtitles": (".idx", f"# VobSub index file, v7\nsize: 720x576\n{path}\n"),
    }  # fmt: skip
    return {name: (suffix, text.encode()) for name, (suffix, text) in texts.items()}


def _external(canaries: Canaries) -> Iterator[Case]:
    """QuickTime files whose frames lie in another file: the data reference of the track names it."""
    own = encoded(".mov")
    path = str(canaries.video).encode()
    dref = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref")
    outcome = damaged(SIGHTS, E.CORRUPT, E.UNSUPPORTED, E.TRUNCATED)  # of the bytes that the file itself has
    for name, entry in (
        ("address", box(b"url ", bytes(4) + canaries.url.encode() + b"\0")),
        ("path", box(b"url ", bytes(4) + b"file://" + path + b"\0")),
        ("alias", box(b"alis", bytes(4) + _alias(canaries.video))),
    ):
        data = edited(own, dref, lambda _, entry=entry: struct.pack(">II", 0, 1) + entry)  # type: ignore[misc]
        write = content(".mov", data)
        yield Case(name=f"mov-frames-at-an-{name}", write=write, outcome=outcome)
    reference = box(b"rdrf", bytes(4) + b"url " + struct.pack(">I", len(path) + 1) + path + b"\0")
    movie = box(b"ftyp", b"qt  \0\0\0\0qt  ") + box(b"moov", box(b"rmra", box(b"rmda", reference)))
    yield Case(name="mov-reference-movie", write=content(".mov", movie), outcome=outcome)


def _alias(target: Path) -> bytes:
    """A Macintosh alias record with the absolute Unix path (tag 18) and the volume's (tag 19)."""
    name = target.name.encode()
    record = bytearray(150)
    record[4:8] = struct.pack(">HH", 150, 2)
    record[50 : 51 + len(name)] = bytes([len(name)]) + name
    record[130:134] = struct.pack(">hh", 1, 1)
    tail = b""
    for tag, text in ((2, str(target).replace("/", ":").encode()), (18, str(target).encode()), (19, b"/")):
        tail += struct.pack(">HH", tag, len(text)) + text + bytes(len(text) % 2)
    return bytes(record) + tail + struct.pack(">HH", 0xFFFF, 0)


def _names(canaries: Canaries) -> Iterator[Case]:
    """Names that FFmpeg would read as a protocol or a pattern, of files with frames of their own."""
    movie, png = video("h264-mp4"), picture("png")
    for number, name in enumerate(
        (
            "frame%03d.mp4",
            "concat:a.mp4|b.mp4",
            "pipe:0.mp4",
            "file:x.mp4",
            "crypto:x.mp4",
            "subfile,,start,0,end,0,,:x.mp4",
            "data:video,x.mp4",
            "async:cache:x.mp4",
            "a?b#c&d.mp4",
            "-i.mp4",
            "--help.mp4",
            "~root.mp4",
            "[ab]*?.mp4",
            "%2e%2e%2fx.mp4",
        )
    ):
        write = content(".mp4", movie, stem=name.removesuffix(".mp4"))
        yield Case(name=f"protocol-{number}", write=write, outcome=right(SIGHTS), is_named=number % 2 == 0)

    def among_canaries(_: Path) -> Path:
        path = canaries.folder / "frame%03d.png"
        path.write_bytes(png)
        return path

    yield Case(name="pattern-among-canaries", write=among_canaries, outcome=right(), is_named=True)
