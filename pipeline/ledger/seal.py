"""JSON that knows when a bit of it was changed: its last member is the sha256 of all the rest."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEY = b'"sha256": "'
_DIGITS = 64


def sealed(values: Mapping[str, Any], *, indent: int | None = None) -> bytes:
    """`values` as JSON, with their seal."""
    open_text = json.dumps({**values, "sha256": ""}, indent=indent).encode()
    head, key, tail = open_text.rpartition(_KEY)
    return head + key + _digest(open_text) + tail


def unsealed(data: bytes) -> dict[str, Any]:
    """What was sealed, or never had a seal. Raises ValueError if it is no JSON object, or its seal is broken."""
    values = json.loads(data)
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    head, key, tail = data.rpartition(_KEY)
    if key and "sha256" in values:
        if _digest(head + key + tail[_DIGITS:]) != tail[:_DIGITS]:
            raise ValueError("its sha256 does not fit its content")
        del values["sha256"]
    return values


def is_sealed(data: bytes) -> bool:
    """Whether there is a seal at all."""
    return _KEY in data


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text.strip()).hexdigest().encode()
