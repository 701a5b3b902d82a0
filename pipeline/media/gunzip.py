"""A gzip file read forward, as a file that can be read at an offset.

Seeking forward decompresses what lies between; going back further than a little starts anew. Members of a tar.gz are
read in the order of the archive, so each reader passes it about once, in flat memory and without a byte on disk.
"""

from __future__ import annotations

import io
import zlib
from pathlib import Path

from pipeline.errors import ErrorCode, MediaError

_CHUNK_BYTES = 1 << 20
_BACK_BYTES = 64 << 10  # who looks for the end of a tar reads a block too far
_GZIP = 16 + zlib.MAX_WBITS  # with gzip's header and checksum
_BOMB_BYTES, _BOMB_RATIO = 1 << 30, 200  # pictures and videos pack a few times smaller at best, bombs a thousand times


class Gunzip:
    """A stream that breaks off, or whose checksum is wrong, is there up to the break, like a short file.

    Raises MediaError too_large once it has given out over a gibibyte and 200 times its own size.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._most = max(_BOMB_BYTES, _BOMB_RATIO * path.stat().st_size)
        self._rewind()

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, fewer only at the end."""
        parts: list[bytes] = []
        while size > 0 and (chunk := self._take(size)):
            parts.append(chunk)
            size -= len(chunk)
        return b"".join(parts)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """To an offset from the beginning, or to the end of the stream if that comes first."""
        if whence != io.SEEK_SET:
            raise io.UnsupportedOperation("only from the beginning")
        if offset < self._start:
            self._rewind()
        self._at = min(offset - self._start, len(self._held))
        while self.tell() < offset and self._take(offset - self.tell()):
            pass
        return self.tell()

    def tell(self) -> int:
        """The offset in what comes out."""
        return self._start + self._at

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _rewind(self) -> None:
        self._file.seek(0)
        self._inflate = zlib.decompressobj(_GZIP)
        self._packed = b""
        self._held, self._start, self._at = b"", 0, 0  # what came out last, its offset, and how much of it is read
        self._ended = False

    def _take(self, size: int) -> bytes:
        """Some of the next `size` bytes; none at the end."""
        while self._at == len(self._held) and not self._ended:
            piece = self._more()
            kept = self._held[-_BACK_BYTES:] if piece else self._held
            self._start += len(self._held) - len(kept)
            self._held, self._at = kept + piece, len(kept)
        taken = self._held[self._at : self._at + size]
        self._at += len(taken)
        return taken

    def _more(self) -> bytes:
        """The next piece that comes out of the next piece of the file; empty if none does yet, or at the end."""
        if self.tell() > self._most:
            raise MediaError(ErrorCode.TOO_LARGE, f"it unpacks to over {_BOMB_RATIO} times its size")
        if not self._packed:
            self._packed = self._file.read(_CHUNK_BYTES)
        if not self._packed:
            self._ended = True
            return b""
        try:
            piece = self._inflate.decompress(self._packed, _CHUNK_BYTES)
        except zlib.error:
            self._ended = True
            return b""
        self._packed = self._inflate.unconsumed_tail
        if self._inflate.eof:  # another member may follow: gzip files may be joined end to end
            self._packed = self._inflate.unused_data.lstrip(b"\0")
            self._inflate = zlib.decompressobj(_GZIP)
        return piece
