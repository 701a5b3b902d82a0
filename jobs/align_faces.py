"""A data set's pictures through the product's own detector and alignment: what is trained on is what is served.

The aligned faces are kept on disk (`--work`), so that training and evaluation detect once.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from pipeline.detect import Detector, load_detector
from ran_model.align import align_faces, aligned_landmarks, similarity_transform, transform_points
from ran_model.config import ModelConfig
from ran_model.data import LabelledFaces
from ran_model.datasets import DataError, Item, Listing
from ran_model.regions import LANDMARKS

CHUNK = 512

log = logging.getLogger(__name__)
Image = NDArray[np.uint8]


def aligned_faces(listing: Listing, config: ModelConfig, work: Path, *, threads: int = 2) -> LabelledFaces:
    """All faces of a listing as the model wants them, from `work` where they are there already.

    Kept crops are aligned already and are only brought to the model's template and size. Raises DataError for a picture
    that can't be read, and for landmark regions of kept crops whose landmarks are not known.
    """
    shape = (len(listing.items), config.aligned_size, config.aligned_size, config.channels)
    folder = work / f"{listing.name}-{config.aligned_size}-{_identity(listing, config)}"
    found_path, faces_path, digests_path, landmarks_path = (
        folder / name for name in ("is_found.npy", "faces_NHWC.npy", "digests_N16.npy", "landmarks_N52.npy")
    )
    if not found_path.exists():  # written last
        folder.mkdir(parents=True, exist_ok=True)
        faces = np.lib.format.open_memmap(str(faces_path), "w+", np.uint8, shape)
        is_found = np.zeros(len(listing.items), np.bool_)
        digests_N16 = np.zeros((len(listing.items), 16), np.uint8)
        landmarks_N52 = np.zeros((len(listing.items), 5, 2), np.float32)
        are_aligned = all(item.template is not None for item in listing.items)
        detector = None if are_aligned else load_detector(threads=threads, min_face_px=8, min_score=0.5)
        for start in range(0, len(listing.items), CHUNK):
            items = listing.items[start : start + CHUNK]
            pictures = [_read(item) for item in items]
            end = start + len(pictures)
            if detector is None:
                faces[start:end] = [_reframed(*pair, config) for pair in zip(items, pictures, strict=True)]
                landmarks_N52[start:end] = [_reframed_landmarks(item, config) for item in items]
                is_found[start:end] = True
            else:
                faces[start:end], is_found[start:end], landmarks_N52[start:end] = align_pictures(
                    pictures, detector, config, smallest_face=listing.smallest_face
                )
            digests_N16[start:end] = [_digest(picture) for picture in pictures]
            log.info("aligned %d of %d pictures", end, len(listing.items))
        faces.flush()
        np.save(digests_path, digests_N16)
        np.save(landmarks_path, landmarks_N52)
        np.save(found_path, is_found)
    stored = np.load(faces_path, mmap_mode="r").transpose(0, 3, 1, 2)
    digests = [digest.tobytes() for digest in np.load(digests_path)]
    landmarks_N52 = np.load(landmarks_path)
    is_unknown_N = np.isnan(landmarks_N52).any(axis=(1, 2))
    if is_unknown_N.any() and any(name in LANDMARKS for name in config.regions):
        face = listing.items[int(is_unknown_N.argmax())].key
        raise DataError(
            f"{listing.name}: {int(is_unknown_N.sum())} crops, such as {face}, have no row in faces/**/*.parquet, and "
            "regions around landmarks need the landmarks there: take the dataset as it was written, or other regions"
        )
    return LabelledFaces(listing, config, stored, np.load(found_path), digests, landmarks_N52)


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
    try:
        encoded = item.picture if isinstance(item.picture, bytes) else item.picture.read_bytes()
    except OSError as error:
        raise DataError(f"picture {item.key} can't be read: {error.strerror}") from None
    picture = cv2.imdecode(np.frombuffer(encoded, np.uint8), cv2.IMREAD_COLOR_RGB) if encoded else None
    if picture is None:
        raise DataError(f"picture {item.key} can't be decoded: it must be a JPEG, PNG or WebP file")
    return np.asarray(picture, dtype=np.uint8)


def _digest(picture: Image) -> NDArray[np.uint8]:
    """16 bytes that two pictures share where all their pixels are alike, however they were encoded."""
    digest = hashlib.blake2b(repr(picture.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(picture).data)
    return np.frombuffer(digest.digest(), np.uint8)


def _identity(listing: Listing, config: ModelConfig) -> str:
    """Changes when other pictures, or another framing, are asked for, and with what is kept of each."""
    framing = (config.template, config.channels, listing.smallest_face, "landmarks")
    digest = hashlib.sha256(repr(framing).encode())
    for item in listing.items:
        picture = item.picture
        digest.update((item.key if item.template is None else f"{item.key} {item.template} {item.landmarks}").encode())
        digest.update(picture if isinstance(picture, bytes) else str(picture).encode())
    return digest.hexdigest()[:12]
