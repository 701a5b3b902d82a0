"""Parts chosen by a hash of the key: the same on every machine, and new files never move old ones."""

from __future__ import annotations

from hashlib import sha256

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.1


def train_or_validation(key: str) -> str:
    """For data sets with a test part but no validation part: a tenth of train becomes validation."""
    return "validation" if _fraction(key) < VALIDATION_SHARE else "train"


def any_split(key: str) -> str:
    """For data sets without parts: train, validation and test as 80, 10 and 10 %."""
    fraction = _fraction(key)
    if fraction < VALIDATION_SHARE:
        return "validation"
    return "test" if fraction < VALIDATION_SHARE + TEST_SHARE else "train"


def _fraction(key: str) -> float:
    """Uniform in [0, 1): the first 8 bytes of SHA-256 over the key's UTF-8."""
    return int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64
