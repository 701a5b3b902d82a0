"""Ends an execution of Ray Data from within its own loop: when the driver wants no more of it, or when it waits for
nodes that are gone.

An actor whose node died is restarted where there is room: on a full cluster, once others have no work left. If no node
that is left can hold it, what was given to it waits, and Ray Data only sees that nothing moves (`graph.NO_PROGRESS_S`:
a file may take so long to arrive). What such an execution has not done runs again, on the nodes that are left.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar

import ray
from ray.data._internal.execution.execution_callback import ExecutionCallback

from pipeline.errors import StoreError

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

LOOK_S = 5.0


class LostNodesError(StoreError):
    """Nodes of the cluster died, and what they held has found no other place."""


class EndedError(Exception):
    """Whoever reads the execution's results wants no more of them."""


class ExecutionWatch(ExecutionCallback):
    """Ray Data makes one for each execution and calls it in every turn of its loop; a process has one at a time.

    An execution is ended for lost nodes at most once per loss: the next one counts the nodes anew.
    """

    #: How long nothing may come out after nodes were lost.
    patience_s: ClassVar[float]
    _last_output: ClassVar[float] = 0.0
    _is_unwanted: ClassVar[bool] = False

    @classmethod
    def begin(cls) -> None:
        """To be called before an execution: its results are wanted."""
        cls._is_unwanted = False

    @classmethod
    def end(cls) -> None:
        """The execution fails with EndedError in its next turn, and lets go of its actors."""
        cls._is_unwanted = True

    @classmethod
    def output_came(cls) -> None:
        """To be called whenever something comes out of the execution."""
        cls._last_output = time.monotonic()

    def before_execution_starts(self, executor: StreamingExecutor) -> None:
        self._seen = _alive()
        self._looked = self._first_loss = 0.0
        self.output_came()

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Raises what the execution then fails with: EndedError or LostNodesError."""
        if self._is_unwanted:
            raise EndedError
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        alive = _alive()
        self._seen |= alive
        lost = len(self._seen - alive)
        if not lost:
            return
        self._first_loss = self._first_loss or now
        if now - max(self._first_loss, self._last_output) >= self.patience_s:
            raise LostNodesError(
                f"{lost} of the cluster's nodes died and nothing came of its work for {self.patience_s:g} s since; "
                "run the same command again to resume"
            )


def _alive() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
