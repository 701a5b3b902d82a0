"""`--storage-option k=v` pairs, as users write them, turned into arguments of an fsspec filesystem.

They may hold secrets: they reach the workers by pickling, and are never saved, logged or shown.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import fsspec

from pipeline.errors import UsageError

#: Friendly keys for S3. Any other key is handed to the filesystem as it is.
S3_KEYS = {
    "endpoint": "S3-compatible server, e.g. http://minio:9000 (else AWS_ENDPOINT_URL)",
    "profile": "profile of the AWS configuration",
    "region": "AWS region",
    "anonymous": "true: no credentials, for public buckets",
    "requester_pays": "true: the requester pays for the transfer",
    "key": "access key id",
    "secret": "secret access key",
    "token": "session token",
}

#: Keys whose values are no secrets; any other key may hold one.
PUBLIC_KEYS = ("endpoint", "profile", "region", "anonymous", "requester_pays", "endpoint_url", "anon")

_TRUE, _FALSE = ("true", "yes", "1", "on"), ("false", "no", "0", "off")


def fsspec_options(options: Mapping[str, str]) -> dict[str, Any]:
    """The user's storage options as keyword arguments of `fsspec.filesystem`. Raises UsageError for a bad boolean."""
    arguments: dict[str, Any] = {}
    for key, value in options.items():
        if key == "endpoint":
            arguments["endpoint_url"] = value
        elif key == "anonymous":
            arguments["anon"] = _boolean(key, value)
        elif key == "requester_pays":
            arguments["requester_pays"] = _boolean(key, value)
        elif key == "region":
            arguments["client_kwargs"] = {"region_name": value}
        else:
            arguments[key] = value
    return arguments


def filesystem(url: str, options: Mapping[str, str]) -> fsspec.AbstractFileSystem:
    """The filesystem of `url` with the user's options. Raises UsageError if it can't be made."""
    protocol = url.partition("://")[0]
    arguments = fsspec_options(options)
    try:
        kind = fsspec.get_filesystem_class(protocol)
    except (ImportError, ValueError) as error:
        raise UsageError(f"{protocol}:// can't be used: {error}") from error
    if protocol == "s3":
        unknown = sorted(set(arguments) - set(inspect.signature(kind.__init__).parameters))
        if unknown:
            raise UsageError(f"no storage option {', '.join(unknown)} for s3://; there are {', '.join(S3_KEYS)}")
        arguments["use_listings_cache"] = False  # another driver's entries must be seen at once
    return kind(**arguments)


def _boolean(key: str, value: str) -> bool:
    if value.lower() not in _TRUE + _FALSE:
        raise UsageError(f"storage option {key} must be true or false")  # a value may be a secret
    return value.lower() in _TRUE
