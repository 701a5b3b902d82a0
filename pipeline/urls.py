"""URLs without their secrets: what may be named in rows, files, logs and messages."""

from __future__ import annotations

import re

#: An AWS secret may hold a slash. A bucket's name has no colon, so all from one up to the @ is a pair of keys.
_KEY_PAIR = re.compile(r"\b(s3[an]?://)[^/@:\s]*:[^@\s]*@", re.IGNORECASE)
_USER_INFO = re.compile(r"\b((?!(?:abfss?|wasbs?)://[^:/@\s]*@)[a-z][a-z0-9+.-]*://)[^/@\s]*@", re.IGNORECASE)
_QUERY = re.compile(r"\b([a-z][a-z0-9+.-]*://[^?\s]*)\?\S*=\S*", re.IGNORECASE)  # else the ? belongs to a pattern


def without_user_info(text: str) -> str:
    """`text` with no user info in any of its URLs; in Azure's, `container@account` is the name."""
    return _USER_INFO.sub(r"\1", _KEY_PAIR.sub(r"\1", text))


def without_credentials(text: str) -> str:
    """`text` with neither user info nor query, which may be a signature, in any of its URLs."""
    return _QUERY.sub(r"\1", without_user_info(text))
