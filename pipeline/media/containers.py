"""Containers: opening a video by the demuxer that its first bytes name, and what their outermost structure tells."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
from av.bitstream import BitStreamFilterContext
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from pipeline.errors import ErrorCode, MediaError
from pipeline.media.sniff import Content, transport_packets

av.logging.set_level(None)  # libav's own lines would fill the actor's log; errors are classified here

NO_FRAME = "there is no frame of video in the file"
_HEADER_BYTES = 4096
_MOST_NOT_CODED_BYTES = 9  # a start code, at most a second's count and 16 bits of time


def open_container(file: Path | BinaryIO, content: Content) -> av.container.InputContainer:
    """The file, by the demuxer that its first bytes name and no other. Raises MediaError."""
    try:
        try:
            return _opened(file, content)
        except (av.InvalidDataError, av.EOFError):
            if not isinstance(file, Path) or not ends_within_fragment(file, content):
                raise
            # all fragments' tables are read first, and half of one is an error: now each when its turn comes
            return _opened(file, content, fflags="+ignidx")
    except MemoryError:
        raise  # FFmpeg's is one of its own errors too
    except (av.FFmpegError, OSError, ValueError) as error:
        raise why_unreadable(file, content, error) from None


def _opened(file: Path | BinaryIO, content: Content, **options: str) -> av.container.InputContainer:
    return av.open(
        str(file) if isinstance(file, Path) else file,
        "r",
        format=content.format,
        options={"protocol_whitelist": "file", **options},
        metadata_errors="replace",  # nobody reads the tags, and old cameras' are Latin-1 or worse
    )


def video_stream(container: av.container.InputContainer) -> VideoStream:
    """The stream that FFmpeg and decord take as the best. Raises MediaError when there is none or no decoder for it."""
    stream = container.streams.best("video")
    pictures = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not isinstance(stream, VideoStream) or not pictures:
        sound = " (sound only)" if container.streams.audio else ""
        raise MediaError(ErrorCode.UNSUPPORTED, f"no video stream in the file{sound}")
    if stream.disposition & Disposition.attached_pic:
        stream = pictures[0]
    if stream.codec_context is None:
        raise MediaError(ErrorCode.UNSUPPORTED, "no decoder for this video's codec")
    return stream


def packets_of(container: av.container.InputContainer, stream: VideoStream) -> Iterator[Packet[VideoStream]]:
    """The stream's packets from where the container stands, one frame in each; last an empty one.

    DivX and Xvid packed a B-frame into the packet of the frame after it, with a frame that is not coded as a
    placeholder in the B-frame's own packet. FFmpeg's filter puts them back.
    """
    if stream.codec_context.name != "mpeg4":
        yield from container.demux(stream)
        return
    unpack = BitStreamFilterContext("mpeg4_unpack_bframes", stream)
    for packet in container.demux(stream):
        if not packet.size:
            yield packet
            continue
        for unpacked in unpack.filter(packet):
            unpacked.stream = stream
            yield unpacked


def is_clean_start(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    """Whether a keyframe's packet holds an IDR picture (ITU-T H.264, table 7-1) or a random access picture (H.265, the
    same). Keyframes of other codecs always are clean starts."""
    codec = stream.codec_context.name
    if codec not in ("h264", "hevc"):
        return True
    extra, data = stream.codec_context.extradata or b"", bytes(packet)
    at_length_size = 4 if codec == "h264" else 21
    # avcC and hvcC begin with version 1; without them, units are separated by start codes
    width = (extra[at_length_size] & 3) + 1 if extra[:1] == b"\x01" and len(extra) > at_length_size else 0
    return any(
        (first & 31) == 5 if codec == "h264" else 16 <= (first >> 1 & 63) <= 21 for first in _unit_headers(data, width)
    )


def shows_nothing(stream: VideoStream, packet: Packet[VideoStream]) -> bool:
    """Whether a packet is one that no frame comes of: a hidden reference of VP8 (RFC 6386, 9.1), or a picture that was
    not coded of MPEG-4 (ISO/IEC 14496-2, 6.2.5), which takes a few bytes."""
    codec = stream.codec_context.name
    if codec == "vp8":
        return not memoryview(packet)[0] & 0x10
    return codec == "mpeg4" and packet.size <= _MOST_NOT_CODED_BYTES and bytes(packet).startswith(b"\0\0\1\xb6")


def _unit_headers(data: bytes, width: int) -> Iterator[int]:
    """The first byte of every unit: after a length of `width` bytes, or after start codes if that is 0."""
    at = 0
    while width and at + width < len(data):
        yield data[at + width]
        at += width + int.from_bytes(data[at : at + width], "big")
    while not width and 0 <= (at := data.find(b"\0\0\1", at)) < len(data) - 3:
        yield data[at + 3]
        at += 3


def why_unreadable(file: Path | BinaryIO, content: Content, error: BaseException) -> MediaError:
    """Whether a container that can't be opened is cut off or broken."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        code = ErrorCode.NOT_FOUND if isinstance(error, FileNotFoundError) else ErrorCode.PERMISSION
        return MediaError(code, "the file can't be opened")
    reason = getattr(error, "strerror", None) or "invalid data"
    if isinstance(file, Path) and is_cut(file, content):
        return MediaError(ErrorCode.TRUNCATED, f"the {content.format} file ends early and can't be opened ({reason})")
    return MediaError(ErrorCode.CORRUPT, f"the {content.format} file can't be opened ({reason})")


def is_cut(path: Path, content: Content) -> bool:
    """Whether a container's outermost lengths reach beyond the end of the file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        if content.format == "mov":
            return any(end > size for _, end in _boxes(file, size))
        if content.format == "avi":
            return _chunks_end(file, size) > size
        if content.format == "matroska":
            return _segment_end(file.read(_HEADER_BYTES)) > size
        # a stream of packets has no end of its own: a cut between two of them is not seen
        return content.format == "mpegts" and _ends_within_packet(file.read(_HEADER_BYTES), size)


def _ends_within_packet(head: bytes, size: int) -> bool:
    packets = transport_packets(head)
    return packets is not None and (size - packets[0]) % packets[1] != 0


def ends_within_fragment(path: Path, content: Content) -> bool:
    """Whether a QuickTime or MP4 file that comes in fragments ends within one. The tables of its frames lie in them, so
    they don't tell that frames are missing."""
    if content.format != "mov":
        return False
    size = path.stat().st_size
    with path.open("rb") as file:
        boxes = list(_boxes(file, size))
    is_fragmented = any(kind == b"moof" for kind, _ in boxes)
    return is_fragmented and boxes[-1][0] in (b"moof", b"mdat") and boxes[-1][1] > size


def _boxes(file: BinaryIO, size: int) -> Iterator[tuple[bytes, int]]:
    """What the outermost boxes of a QuickTime or MP4 file are, and where each ends (ISO/IEC 14496-12, 4.2)."""
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8 or not head[4:8].isascii():  # 0 means up to the end; anything else below 8 is no box
            length = size - at
        at += length
        yield head[4:8], at


def _chunks_end(file: BinaryIO, size: int) -> int:
    """Where the last list of frames of an AVI file ends; a large file has several RIFF chunks with one in each.

    The lengths of the RIFF chunks are not believed: some writers put the file's own there, or none.
    """
    at, end, has_frames = 0, 0, False
    while at + 12 <= size:
        file.seek(at)
        head = file.read(12)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] == b"RIFF":
            at += 12  # into it
            continue
        is_frames = head[:4] == b"LIST" and head[8:12] == b"movi"
        if is_frames and length == 0:  # a recording that was never finished
            return size
        if is_frames or not has_frames:  # behind the frames there may be anything
            end = at + 8 + length
        has_frames |= is_frames
        at += 8 + length + length % 2
    return end if has_frames else size + 1


def _segment_end(head: bytes) -> int:
    """Where the segment of a Matroska file ends (RFC 8794, 4 and 5), or 0 when it doesn't say."""
    at = 4
    length, at = _variable_length(head, at)
    at += length
    if head[at : at + 4] != bytes.fromhex("18538067"):
        return 0
    first = at + 4
    length, at = _variable_length(head, first)
    unknown = length == (1 << 7 * (at - first)) - 1
    return 0 if unknown else at + length


def _variable_length(data: bytes, at: int) -> tuple[int, int]:
    width = 9 - data[at].bit_length() if at < len(data) and data[at] else 9
    value = int.from_bytes(data[at : at + width], "big") & ((1 << 7 * width) - 1)
    return value, at + width
