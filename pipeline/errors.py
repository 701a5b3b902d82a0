"""Every error a user can meet, with its exit code or its stable error code."""

from __future__ import annotations

from enum import StrEnum


class ErrorCode(StrEnum):
    """Stable words for what can be wrong with an input; they are stored in `segments.error_code`."""

    NOT_FOUND = "not_found"
    PERMISSION = "permission"
    NOT_MEDIA = "not_media"
    CORRUPT = "corrupt"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    TIMEOUT = "timeout"
    DECODER_CRASH = "decoder_crash"
    ARCHIVE_MEMBER = "archive_member"
    UNSUPPORTED = "unsupported"
    UNREACHABLE = "unreachable"
    SOURCE_CHANGED = "source_changed"
    OUT_OF_MEMORY = "out_of_memory"
    INTERNAL = "internal"

    @property
    def meaning(self) -> str:
        """What was wrong, for people who meet the word."""
        return _MEANINGS[self]


_MEANINGS = {
    ErrorCode.NOT_FOUND: "the file is gone",
    ErrorCode.PERMISSION: "the file may not be read",
    ErrorCode.NOT_MEDIA: "no video, picture or archive",
    ErrorCode.CORRUPT: "the file is damaged",
    ErrorCode.TRUNCATED: "the file ends early",
    ErrorCode.TOO_LARGE: "more pixels or bytes than allowed",
    ErrorCode.TIMEOUT: "reading it took longer than `--deadline-s`, or fetching it an hour",
    ErrorCode.DECODER_CRASH: "its decoder died",
    ErrorCode.ARCHIVE_MEMBER: "a member of the archive can't be read",
    ErrorCode.UNSUPPORTED: "media of a kind that is not read here",
    ErrorCode.UNREACHABLE: "its store does not answer",
    ErrorCode.SOURCE_CHANGED: "the file no longer matches its rows, or changed while it was read",
    ErrorCode.OUT_OF_MEMORY: "reading it took more memory than allowed",
    ErrorCode.INTERNAL: "it crashed the worker twice when run alone",
}


class RanError(Exception):
    """Base of all errors that a user is told in one line. `exit_code` is what the command line ends with."""

    exit_code = 1


class UsageError(RanError):
    """The command, its configuration or the chosen output is wrong. The message names the value and the mend."""

    exit_code = 2


class ErrorRateError(RanError):
    """The run finished, but more of its sources failed than `--max-error-rate` allows."""

    exit_code = 3


class CapacityError(RanError):
    """The cluster or a disk can't hold the job; raised before anything starts."""

    exit_code = 4


class StoreError(RanError):
    """The output store or the cluster failed under way; running the same command again resumes."""

    exit_code = 5


class NoClusterError(StoreError):
    """Ray can't be reached, so nothing has begun."""


class StartError(StoreError):
    """A decode process did not come up: its node lacks something, or is too busy. What it was to read is not at fault.
    The message only says why."""


class DamageError(StoreError):
    """A file of the dataset is gone, or says something else than what was committed: `verify --repair` mends that.

    Never raised because the store failed: what can't be read just now may be whole.
    """


class NewerVersionError(UsageError):
    """A newer version of this program wrote the dataset: nothing is wrong with it, and only an upgrade can read it."""


class NoPlaceError(StoreError, UsageError):
    """The output's bucket does not exist, a file is where its folder has to be, or its file system can hold no dataset:
    no second try mends that."""

    exit_code = 2


class RunClosedError(StoreError):
    """Another driver found this run's heartbeat stale and closed it; this driver must commit nothing more."""


class MediaError(RanError):
    """One input can't be read. It becomes a row with `code`; it never stops the job."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[MediaError], tuple[ErrorCode, str]]:
        return (type(self), (self.code, self.message))
