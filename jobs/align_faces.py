"""A data set's pictures through the product's own detector and alignment: what is trained on is what is served.

The aligned faces are kept on disk (`--work`), so that training and evaluation detect once, on all cores; a killed
command goes on where it was.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from jobs.processes import core_count
from jobs.training_progress import training_progress
from pipeline.detect import Detector, load_detector
from ran_model.align import align_faces, aligned_landmarks, similarity_transform, transform_points
from ran_model.config import ModelConfig
from ran_model.data import LabelledFaces
from ran_model.datasets import DataError, Item, Listing

PIECE = 32  # pictures that a thread takes at a time
CHECKPOINT = 1024  # pictures after which a killed command need not align again
DONE_FILE = "aligned.txt"  # how many pictures of the listing are kept; written after them

Image = NDArray[np.uint8]


def aligned_faces(listing: Listing, config: ModelConfig, work: Path, *, threads: int | None = None) -> LabelledFaces:
    """All faces of a listing as the model wants them, from `work` where they are there already.

    Kept crops are aligned already and are only brought to the model's template and size. threads: all cores by default;
    the faces don't depend on it. Raises DataError for a picture that can't be read, and for landmark regions of kept
    crops whose landmarks are not known.
    """
    folder = work / f"{listing.name}-{config.aligned_size}-{_identity(listing, config)}"
    count = len(listing.items)
    if _done(folder) < count:
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _align(listing, config, folder, threads or core_count())
    kept = _Kept.open(folder, "r", count, config)
    digests = [digest.tobytes() for digest in kept.digests_N16]
    faces_NCSS = kept.faces_NHWC.transpose(0, 3, 1, 2)
    return LabelledFaces(listing, config, faces_NCSS, np.array(kept.is_found_N), digests, np.array(kept.landmarks_N52))


@dataclass(frozen=True)
class _Kept:
    """What is kept of a listing's pictures, in its order: memory maps of files in one folder.

    faces_NHWC, landmarks_N52, is_found_N: as `align_pictures` gives them. digests_N16: of the pictures' pixels.
    """

    faces_NHWC: NDArray[np.uint8]
    landmarks_N52: NDArray[np.float32]
    is_found_N: NDArray[np.bool_]
    digests_N16: NDArray[np.uint8]

    @staticmethod
    def open(folder: Path, mode: str, count: int, config: ModelConfig) -> _Kept:
        """mode: "r", "r+" to go on, or "w+" to begin."""
        size = config.aligned_size
        layout = {
            "faces_NHWC": (np.uint8, (size, size, config.channels)),
            "landmarks_N52": (np.float32, (5, 2)),
            "is_found_N": (np.bool_, ()),
            "digests_N16": (np.uint8, (16,)),
        }
        return _Kept(
            **{
                name: np.lib.format.open_memmap(str(folder / f"{name}.npy"), mode, dtype, (count, *shape))
                for name, (dtype, shape) in layout.items()
            }
        )

    def flush(self) -> None:
        """To disk, so that what says how many are done can follow."""
        for array in (self.faces_NHWC, self.landmarks_N52, self.is_found_N, self.digests_N16):
            assert isinstance(array, np.memmap)
            array.flush()


def _done(folder: Path) -> int:
    """How many pictures are kept there."""
    path = folder / DONE_FILE
    return int(path.read_text()) if path.exists() else 0


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Another command that wants the same faces waits, and finds them done."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _align(listing: Listing, config: ModelConfig, folder: Path, threads: int) -> None:
    """What is not kept yet."""
    count, done = len(listing.items), _done(folder)
    if done == count:
        return
    kept = _Kept.open(folder, "r+" if done else "w+", count, config)
    are_aligned = all(item.template is not None for item in listing.items)
    # One thread per forward pass: passes side by side are faster than passes of several threads.
    detector = None if are_aligned else load_detector(threads=1, min_face_px=8, min_score=0.5)
    align = partial(_align_piece, listing, config, kept, detector)
    show = training_progress("aligning", unit="picture")
    with ThreadPoolExecutor(threads) as pool:
        for start in range(done, count, CHECKPOINT):
            end = min(start + CHECKPOINT, count)
            pieces = [range(first, min(first + PIECE, end)) for first in range(start, end, PIECE)]
            for piece, _ in zip(pieces, pool.map(align, pieces), strict=True):
                show(piece.stop, count)
            kept.flush()
            unfinished = folder / f"{DONE_FILE}.tmp"
            unfinished.write_text(str(end))
            os.replace(unfinished, folder / DONE_FILE)


def _align_piece(
    listing: Listing, config: ModelConfig, kept: _Kept, detector: Detector | None, positions: range
) -> None:
    """These pictures of the listing, into what is kept. Without a detector they are aligned already."""
    part = slice(positions.start, positions.stop)
    items = listing.items[part]
    pictures = [_read(item) for item in items]
    if detector is None:
        kept.faces_NHWC[part] = [_reframed(*pair, config) for pair in zip(items, pictures, strict=True)]
        kept.landmarks_N52[part] = [_reframed_landmarks(item, config) for item in items]
        kept.is_found_N[part] = True
    else:
        kept.faces_NHWC[part], kept.is_found_N[part], kept.landmarks_N52[part] = align_pictures(
            pictures, detector, config, smallest_face=listing.smallest_face
        )
    kept.digests_N16[part] = [_digest(picture) for picture in pictures]


def align_pictures(
    pictures: Sequence[Image], detector: Detector, config: ModelConfig, *, smallest_face: float = 0.0
) -> tuple[Image, NDArray[np.bool_], NDArray[np.float32]]:
    """The highest face of each picture (uint8 HWC RGB), aligned: uint8 (N, S, S, C); whether a face was found; and
    where its own landmarks lie then, in fractions of the square: float32 (N, 5, 2).

    smallest_face: the share of the picture's height that it must have. Where none is found the whole picture is used:
    its own framing is the template's, and so are its landmarks.
    """
    size = config.aligned_size
    template = np.array(config.template, dtype=np.float32)
    faces = np.empty((len(pictures), size, size, config.channels), dtype=np.uint8)
    is_found = np.zeros(len(pictures), np.bool_)
    landmarks_N52 = np.tile(template, (len(pictures), 1, 1))
    for index, (picture, detected) in enumerate(zip(pictures, detector.detect(pictures), strict=True)):
        heights_N = detected.boxes_N4[:, 3]
        if len(heights_N) and heights_N.max() >= smallest_face * len(picture):
            is_found[index] = True
            own_152 = detected.landmarks_N52[[heights_N.argmax()]]
            face = align_faces(picture, own_152, template, size)[0]
            landmarks_N52[index] = aligned_landmarks(own_152, template, size)[0]
        else:
            face = _resized(picture, size)
        faces[index] = _coloured(face, config)
    return faces, is_found, landmarks_N52


def _reframed(item: Item, face: Image, config: ModelConfig) -> Image:
    """A face that was aligned to the item's template, as the model wants it: uint8 (S, S, C)."""
    theirs = np.array(item.template, np.float32).reshape(5, 2)
    ours = np.array(config.template, np.float32)
    size = config.aligned_size
    if np.array_equal(theirs, ours):
        return _coloured(_resized(face, size), config)
    landmarks_N52 = (theirs * np.array(face.shape[1::-1], np.float32))[None]
    return _coloured(align_faces(face, landmarks_N52, ours, size)[0], config)


def _reframed_landmarks(item: Item, config: ModelConfig) -> NDArray[np.float32]:
    """Where the face's own landmarks lie in what `_reframed` makes of it: fractions (5, 2); NaN where not known."""
    if item.landmarks is None:
        return np.full((5, 2), np.nan, np.float32)
    theirs = np.array(item.template, np.float32).reshape(5, 2)
    ours = np.array(config.template, np.float32)
    size = config.aligned_size
    landmarks_152 = np.array(item.landmarks, np.float32).reshape(1, 5, 2)
    if np.array_equal(theirs, ours):
        return np.asarray(aligned_landmarks(landmarks_152, ours, size)[0], np.float32)
    in_crop_152 = (aligned_landmarks(landmarks_152, theirs, size) * size).astype(np.float32)
    matrix_123 = similarity_transform(theirs[None] * size, ours, size)
    return np.asarray(transform_points(in_crop_152, matrix_123)[0] / size, np.float32)


def _resized(picture: Image, size: int) -> Image:
    return np.asarray(cv2.resize(picture, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)


def _coloured(face: Image, config: ModelConfig) -> Image:
    return np.asarray(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None] if config.channels == 1 else face, np.uint8)


def _read(item: Item) -> Image:
    where = item.key if isinstance(item.picture, bytes) else item.picture
    try:
        encoded = item.picture if isinstance(item.picture, bytes) else item.picture.read_bytes()
    except OSError as error:
        raise DataError(f"picture {where} can't be read: {error.strerror}") from None
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    if picture is None:
        raise DataError(
            f"picture {where} can't be decoded: it must be a whole JPEG, PNG, WebP, BMP or TIFF file; put it right, or "
            "take it out of the data set"
        )
    return np.asarray(picture, dtype=np.uint8)


def _digest(picture: Image) -> NDArray[np.uint8]:
    """16 bytes that two pictures share where all their pixels are alike, however they were encoded."""
    digest = hashlib.blake2b(repr(picture.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _file_state(path: Path) -> bytes:
    """Another one once the file was replaced. One that is missing is told when it is read."""
    try:
        state = path.stat()
    except OSError:
        return str(path).encode()
    return f"{path} {state.st_size} {state.st_mtime_ns}".encode()


def _identity(listing: Listing, config: ModelConfig) -> str:
    """Changes when other pictures, or another framing, are asked for, and with what is kept of each."""
    framing = (config.template, config.channels, listing.smallest_face, "landmarks")
    digest = hashlib.sha256(repr(framing).encode())
    for item in listing.items:
        picture = item.picture
        digest.update((item.key if item.template is None else f"{item.key} {item.template} {item.landmarks}").encode())
        digest.update(picture if isinstance(picture, bytes) else _file_state(picture))
    return digest.hexdigest()[:12]
