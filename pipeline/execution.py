"""An execution of Ray Data: how it is set up, its results as they come, and its end.

An actor whose node died is restarted where there is room: on a full cluster, once others have no work left. If no node
that is left can hold it, what was given to it waits, and Ray Data only sees that nothing moves (`NO_PROGRESS_S`: a file
may take so long to arrive). `ExecutionWatch` ends such an execution from within its own loop, and one whose results
nobody wants any more. What it has not done runs again, on the nodes that are left (`pipeline.processing`).
"""

from __future__ import annotations

import contextlib
import gc
import queue
import threading
import time
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, ClassVar

import pyarrow as pa
import ray
from ray.data import DataContext, Dataset
from ray.data._internal.execution.execution_callback import ExecutionCallback
from ray.data.exceptions import SystemException

from pipeline.errors import RanError, StartError, StoreError

if TYPE_CHECKING:
    from ray.data._internal.execution.streaming_executor import StreamingExecutor

ACTOR_START_S = 600
MOST_STARTS = 3  # executions in a row that gave nothing because an actor did not come up
LOST_NODES_S = 300.0  # without any result after a node's death; new nodes take minutes to start
NO_PROGRESS_S = 3600  # of a whole execution; a unit may wait so long for the bytes of its file
LOOK_S = 5.0  # between two looks at the nodes
POLL_S = 0.5
END_S = 5.0  # for an execution to let go of its actors; one that still starts them can't be ended


class LostNodesError(StoreError):
    """Nodes of the cluster died, and what they held has found no other place."""


class EndedError(Exception):
    """Whoever reads the execution's results wants no more of them."""


def configure_ray_data(*, wait_for_nodes_s: float = 0.0) -> None:
    """One block per task, so that a replay can't split differently; no progress bars but ours.

    wait_for_nodes_s: how long the cluster may take to start nodes for the fewest actors of each pool.
    """
    context = DataContext.get_current()
    context.target_max_block_size = None
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.max_errored_blocks = 0
    # decoders that run ahead of a loading model only fill the object store
    context.wait_for_min_actors_s = int(max(ACTOR_START_S, wait_for_nodes_s))
    context.raise_original_map_exception = True  # pickling Ray Data's own wrapper would lose what it wraps
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.custom_execution_callback_classes = [ExecutionWatch]
    ExecutionWatch.patience_s = max(LOST_NODES_S, wait_for_nodes_s)
    context.memory_usage_poll_interval_s = None  # a thread per task that reads what nobody looks at
    _start_ray_datas_own_actors()


def _start_ray_datas_own_actors() -> None:
    """Each takes a second of CPU to start. Left to the first execution, they start after our actors and take it from
    the first segments: a tenth of the speed of a two-minute clip on two cores."""
    with contextlib.suppress(ImportError):  # not public; without this nothing is wrong
        from ray.data._internal.cluster_autoscaler import get_or_create_autoscaling_coordinator
        from ray.data._internal.stats import get_or_create_stats_actor

        get_or_create_stats_actor()
        get_or_create_autoscaling_coordinator()  # type: ignore[no-untyped-call]


def blocks(dataset: Dataset) -> Iterator[pa.Table]:
    """What comes out of the dataset, block by block, as soon as it is there."""
    ExecutionWatch.begin()
    for block in dataset.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        ExecutionWatch.output_came()
        yield block


def blocks_until(stop: threading.Event, dataset: Dataset) -> Generator[pa.Table | BaseException | None]:
    """`blocks` until `stop` is set; None now and then, so that the caller can see to other things; last, if it failed,
    the exception. To be closed.

    A thread drains Ray's iterator. When the caller stops or fails, the execution and the thread are ended before Ray's
    connection is taken away under them: the process could die of that with an exit code that isn't ours.
    """
    results: queue.Queue[pa.Table | BaseException | None] = queue.Queue()
    abandoned = threading.Event()

    def drain() -> None:
        try:
            for block in blocks(dataset):
                if abandoned.is_set():
                    return
                results.put(block)
        except BaseException as error:
            results.put(error)
        results.put(None)

    thread = threading.Thread(target=drain, name="blocks", daemon=True)
    thread.start()
    try:
        while not stop.is_set():
            try:
                item = results.get(timeout=POLL_S)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            yield item
    finally:
        abandoned.set()
        ExecutionWatch.end()
        thread.join(END_S)


def cause_of(error: BaseException) -> BaseException:
    """What really happened inside Ray's wrapping. Ray Data marks what is no user code's by an empty SystemException as
    its cause."""
    inner = getattr(error, "cause", None) or error.__cause__
    if not isinstance(inner, BaseException) or isinstance(inner, SystemException) or inner is error:
        return error
    return cause_of(inner)


def raise_for_users(cause: BaseException) -> None:
    """Raises an error of ours as it was, without what Ray adds to it."""
    if isinstance(cause, RanError):
        raise type(cause)(str(cause).splitlines()[0]) from None


def did_not_start(cause: BaseException) -> bool:
    """Whether it is an actor that failed in its constructor, or whose decode process did not come up when it needed
    one: what it is given to do is not at fault."""
    return isinstance(cause, StartError) or bool(getattr(cause, "actor_init_failed", False))


def actors_dont_start(cause: BaseException) -> StoreError:
    """What the user is told once that has happened MOST_STARTS times in a row; and of the driver's own decode process,
    at once."""
    who = "" if isinstance(cause, StartError) else "actors don't start on the cluster: "
    return StoreError(f"{who}{in_a_line(cause)}; mend that and run the same command again to resume")


def in_a_line(cause: BaseException) -> str:
    """An exception for a message of ours. What failed in an actor's constructor Ray tells as the text of a traceback,
    whose end names the exception."""
    lines = [line.strip() for line in str(cause).splitlines() if line.strip()] or [""]
    if isinstance(cause, StartError):
        return lines[0]
    return lines[-1] if did_not_start(cause) else f"{type(cause).__name__}: {lines[0]}"


class ExecutionWatch(ExecutionCallback):
    """Ray Data makes one for each execution and calls it in every turn of its loop; a process has one at a time.

    An execution is ended for lost nodes at most once per loss: the next one counts the nodes anew.

    Until something has come out, it may be waiting for the CPUs of actors whose execution broke. The exception and the
    frames that hold those refer to each other, and a driver that waits makes no garbage, so Python's collector would
    never come by itself: it is called here.
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
        self._begun = self._last_output

    def on_execution_step(self, executor: StreamingExecutor) -> None:
        """Raises what the execution then fails with: EndedError or LostNodesError."""
        if self._is_unwanted:
            raise EndedError
        now = time.monotonic()
        if now - self._looked < LOOK_S:
            return
        self._looked = now
        if self._last_output == self._begun:
            gc.collect()
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
