"""The end of the process."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import NoReturn


def leave(code: int) -> NoReturn:
    """Ends the process with this exit code, once all else is closed.

    Where Ray was: threads of Ray Data may still wait inside Ray's native code when its connection is gone, and an
    interpreter that is taken down around them can crash (seen on a busy machine: SIGSEGV after the last line, instead
    of the code). So it is not taken down.
    """
    if "ray" in sys.modules:
        with contextlib.suppress(BrokenPipeError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)
    sys.exit(code)
