"""The hostile corpus: every case, in a fixed order; the same seed gives the same bytes."""

from __future__ import annotations

from tests.hostile import damage, odd_archives, odd_names, odd_pictures, odd_videos, playlists
from tests.hostile.canaries import Canaries
from tests.hostile.case import Case

SEED = 4
LEAST_FILES = 300
#: The sixty that every test run has.
# fmt: off
IN_EVERY_RUN = frozenset({
    "h264-mp4-cut-75", "h264-index-last-cut-75", "h264-mkv-cut-30", "h264-ts-cut-75", "hevc-mp4-flip-3",
    "vp9-webm-flip-2", "mpeg4-avi-cut-75", "jpeg-cut-75", "png-cut-75", "gif-cut-75", "deflated-tiff-flip-1",
    "tar-cut-75", "tar-gz-cut-75", "tar-gz-flip-2", "zip-cut-75", "audio-only-mp4", "no-frame-mp4",
    "two-video-streams", "turned-quarter", "size-changes-libx264-ts", "prores_ks-yuv422p10le",
    "two-pixels-square", "negative-times-mkv", "no-times-avi", "says-it-lasts-for-decades", "a-frame-a-day",
    "two-billion-frames-of-a-byte", "webp-16383-square", "png-bomb", "png-text-bomb", "png-1-by-20000",
    "broken-exif", "empty-mp4", "tar-odd-names", "zip-odd-names", "tar-name-of-no-unicode",
    "tar-links-and-devices", "zip-link", "zip-encrypted-member", "zip-member-of-four-gigabytes",
    "tar-member-of-over-64-bits", "tar-member-of-minus-1024-bytes", "tar-of-3000-long-names", "tar-gz-bomb",
    "m3u8-address-as-mp4", "ffconcat-as-mp4", "dash-as-mp4", "sdp-as-mp4", "mov-frames-at-an-alias",
    "mov-reference-movie", "h264-mp4-called-jpg", "zip-called-mov", "name-new-line", "name-escape-codes",
    "name-of-no-unicode", "name-in-both-forms", "fifo", "fifo-named", "link-to-itself", "folder-in-itself",
})
# fmt: on


def corpus(canaries: Canaries, seed: int = SEED) -> list[Case]:
    """All cases, names unique."""
    cases = [
        *damage.cases(seed),
        *odd_videos.cases(),
        *odd_pictures.cases(),
        *odd_archives.cases(canaries),
        *playlists.cases(canaries),
        *odd_names.cases(),
    ]
    assert len({case.name for case in cases}) == len(cases)
    return cases
