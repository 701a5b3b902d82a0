"""Truncations and bit flips of every supported kind, at offsets drawn by a seed."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import numpy as np

from pipeline.errors import ErrorCode
from tests.hostile import originals
from tests.hostile.case import PICTURE, Case, Outcome, Sight, content, damaged

E = ErrorCode
#: What cut or flipped bytes may be called.
BROKEN = (E.TRUNCATED, E.CORRUPT, E.NOT_MEDIA, E.UNSUPPORTED, E.TOO_LARGE, E.ARCHIVE_MEMBER)
CUTS = (0.02, 0.3, 0.75, 0.98)
MEMBER_SIGHTS: tuple[Sight, ...] = tuple((name, None) for name in originals.MEMBERS)


def cases(seed: int) -> Iterator[Case]:
    """Every original, cut at four places and flipped at four, pictures and archives too."""
    for name, (suffix, *_) in originals.VIDEOS.items():
        yield from _of(name, suffix, originals.video(name), originals.SIGHTS, seed)
    for name, (suffix, *_) in originals.PICTURES.items():
        yield from _of(name, suffix, originals.picture(name), PICTURE, seed)
    for name, suffix in originals.ARCHIVES.items():
        yield from _of(name, suffix, originals.archive(name), MEMBER_SIGHTS, seed)


def _of(name: str, suffix: str, data: bytes, sights: tuple[Sight, ...], seed: int) -> Iterator[Case]:
    draw = np.random.default_rng([seed, zlib.crc32(name.encode())])
    for share in CUTS:
        at = int(len(data) * share) + int(draw.integers(0, max(1, len(data) // 100)))
        yield _case(f"{name}-cut-{share * 100:.0f}", suffix, data[:at], damaged(sights, *BROKEN))
    # the head, where structure is, then anywhere; a flip may change what a file says of itself, and nothing can tell
    bounds = ((0, min(len(data), 600)), (0, len(data)), (len(data) // 2, len(data)), (len(data) * 9 // 10, len(data)))
    for number, (first, last) in enumerate(bounds):
        flipped = bytearray(data)
        places = draw.integers(first, last, 1 + 2 * number)
        for place in places:
            flipped[place] ^= 1 << int(draw.integers(8))
        inside = name == "h264-mp4" and min(places) > data.index(b"mdat")  # only pixels: the index is whole
        outcome = damaged(sights if inside else None, *BROKEN, most_faces=2)
        yield _case(f"{name}-flip-{number}", suffix, bytes(flipped), outcome)


def _case(name: str, suffix: str, data: bytes, outcome: Outcome) -> Case:
    return Case(name=name, write=content(suffix, data), outcome=outcome)
