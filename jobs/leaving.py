"""The end of the process."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Ends the process with this exit code, once all else is closed.

    Threads of Ray Data, Arrow and other libraries may still be in native code then, and an interpreter that is taken
    down around them can crash (seen on a busy machine: SIGSEGV or SIGABRT after the last line, instead of the code). So
    it is not taken down.
    """
    with contextlib.suppress(OSError):  # whoever read left, or the disk is full
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)
