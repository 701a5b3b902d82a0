"""What a file is, by its first bytes. Only containers that hold their own data pass; playlists, which make a demuxer
open further files or addresses, are refused here, before any demuxer sees them.
"""

from __future__ import annotations

import tarfile
from dataclasses import dataclass

from pipeline.errors import ErrorCode, MediaError

HEAD_BYTES = 4096

# fmt: off
VIDEO_SUFFIXES = frozenset({
    ".mp4", ".m4v", ".mov", ".qt", ".3gp", ".3g2", ".mkv", ".webm", ".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg",
    ".vob", ".flv", ".ogv", ".wmv", ".asf", ".mxf",
})
PICTURE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".bmp", ".tif", ".tiff", ".gif", ".avif", ".heic",
    ".heif", ".hif",
})
# fmt: on
ARCHIVE_SUFFIXES = frozenset({".tar", ".tgz", ".zip"})
MEDIA_SUFFIXES = VIDEO_SUFFIXES | PICTURE_SUFFIXES | ARCHIVE_SUFFIXES

_QUICKTIME_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
_STILL_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_ASF = bytes.fromhex("3026b2758e66cf11")
_MXF = bytes.fromhex("060e2b34")


@dataclass(frozen=True, kw_only=True)
class Content:
    """kind: video, picture or archive. format: FFmpeg's demuxer, Pillow's format, or tar, tar.gz, zip."""

    kind: str
    format: str


def suffix(name: str) -> str:
    """The lower-case suffix, with `.tar.gz` as one: only those gzip files are archives."""
    base = name.rsplit("/", 1)[-1].lower()
    if base.endswith(".tar.gz"):
        return ".tgz"
    dot = base.rfind(".")
    return "" if dot <= 0 or base.endswith(".gz") else base[dot:]


def is_media_name(name: str) -> bool:
    """Whether a file found in a directory is taken, by its name alone."""
    return suffix(name) in MEDIA_SUFFIXES


def is_video_name(name: str) -> bool:
    """Whether an archive's member is a video, by its name alone."""
    return suffix(name) in VIDEO_SUFFIXES


def guess_kind(name: str) -> str:
    """The kind that a name promises; what counts is `sniff`."""
    ending = suffix(name)
    if ending in PICTURE_SUFFIXES:
        return "picture"
    return "archive" if ending in ARCHIVE_SUFFIXES else "video"


def sniff(head: bytes) -> Content:
    """The content of a file that begins with `head` (HEAD_BYTES, or all of a shorter file).

    Raises MediaError: not_media, or unsupported for playlists and formats that are known but not read.
    """
    for reason, known in ((_playlist(head), False), (_known_but_unread(head), True)):
        if reason:
            raise MediaError(ErrorCode.UNSUPPORTED, f"{reason} is not read" if known else _PLAYLIST.format(reason))
    content = _picture(head) or _video(head) or _archive(head)
    if content is None:
        what = (
            "the file is empty" if not head else f"begins with {head[:8].hex(' ')}: no known video, picture or archive"
        )
        raise MediaError(ErrorCode.NOT_MEDIA, what)
    return content


_PLAYLIST = "{} names other files or addresses, which are never opened: give the media files themselves"


def _playlist(head: bytes) -> str:
    text = head.lstrip(b"\xef\xbb\xbf \t\r\n")[:512]
    for magic, what in (
        (b"#EXTM3U", "a playlist (m3u8)"),
        (b"ffconcat", "a concat list"),
        (b"[playlist]", "a playlist (pls)"),
        (b"v=0", "a session description (sdp)"),
        (b"<MPD", "a DASH manifest"),
        (b"<smil", "a SMIL playlist"),
    ):
        if text.startswith(magic) or (magic.startswith(b"<") and text.startswith(b"<?xml") and magic in text):
            return what
    return ""


def _known_but_unread(head: bytes) -> str:
    for magic, what in (
        (b"BZh", "bzip2"),
        (b"\xfd7zXZ\x00", "xz"),
        (b"\x28\xb5\x2f\xfd", "zstd"),
        (b"7z\xbc\xaf\x27\x1c", "7-zip"),
        (b"Rar!", "RAR"),
    ):
        if head.startswith(magic):
            return f"{what} compression"
    for magic, what in (
        (b"ID3", "an MP3 sound file"),
        (b"fLaC", "a FLAC sound file"),
        (b"%PDF-", "a PDF document"),
    ):
        if head.startswith(magic):
            return what
    if head[:4] == b"RIFF" and head[8:12] == b"WAVE":
        return "a WAV sound file"
    if head[:1] == b"\xff" and head[1:2] in (b"\xfa", b"\xfb", b"\xf2", b"\xf3") and head[2:3] not in (b"", b"\xff"):
        return "an MP3 sound file"
    return ""


def _picture(head: bytes) -> Content | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return Content(kind="picture", format="WEBP")
    if head[4:8] == b"ftyp" and head[8:12] in _STILL_BRANDS:  # ISO/IEC 23008-12, 10: the brands say how it is coded
        brands = head[8 : min(int.from_bytes(head[:4], "big"), HEAD_BYTES)]
        return Content(kind="picture", format="AVIF" if b"avif" in brands or b"avis" in brands else "HEIF")
    for magic, name in (
        (b"\xff\xd8\xff", "JPEG"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"GIF87a", "GIF"),
        (b"GIF89a", "GIF"),
        (b"II*\x00", "TIFF"),
        (b"MM\x00*", "TIFF"),
        (b"II+\x00", "TIFF"),  # BigTIFF
        (b"MM\x00+", "TIFF"),
    ):
        if head.startswith(magic):
            return Content(kind="picture", format=name)
    # "BM" alone is two letters; the size of the header that follows makes it a bitmap
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in (12, 16, 40, 52, 56, 64, 108, 124):
        return Content(kind="picture", format="BMP")
    return None


def _video(head: bytes) -> Content | None:
    if head[4:8] in _QUICKTIME_BOXES:
        return Content(kind="video", format="mov")
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return Content(kind="video", format="avi")
    for magic, name in (
        (b"\x1aE\xdf\xa3", "matroska"),
        (b"FLV\x01", "flv"),
        (b"OggS", "ogg"),
        (_ASF, "asf"),
        (_MXF, "mxf"),
        (b"\x00\x00\x01\xba", "mpeg"),
        (b"\x00\x00\x01\xb3", "mpegvideo"),
    ):
        if head.startswith(magic):
            return Content(kind="video", format=name)
    return Content(kind="video", format="mpegts") if transport_packets(head) is not None else None


def transport_packets(head: bytes) -> tuple[int, int] | None:
    """Where the first whole packet of a transport stream begins, and bytes from one to the next; None: it is none.

    188 bytes (ISO/IEC 13818-1), 192 with the time code of a camera before each, 204 with a broadcaster's check bytes
    after each. A recording may begin within a packet.
    """
    for step, before in ((188, 0), (192, 4), (204, 0)):
        for first in range(before, min(step + before, len(head) - 4 * step)):
            if all(head[first + n * step] == 0x47 for n in range(5)):
                return first - before, step
    return None


def _archive(head: bytes) -> Content | None:
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return Content(kind="archive", format="zip")
    if head.startswith(b"\x1f\x8b\x08"):
        return Content(kind="archive", format="tar.gz")
    try:
        tarfile.TarInfo.frombuf(head[:512], "utf-8", "surrogateescape")  # also the tar of before POSIX, by checksum
    except tarfile.HeaderError:
        return None
    return Content(kind="archive", format="tar")
