"""Ray: start it on this machine or join a cluster, and look at what is there."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import signal
import sys
import threading
import uuid
from collections.abc import Iterator
from typing import Any

from pipeline.errors import CapacityError, NoClusterError, StoreError, UsageError
from pipeline.resources import Cluster, local_cpus
from pipeline.storage.store import Store
from pipeline.watchdog import head_watched

NODE_ANSWER_S = 120.0  # a worker process may have to start there


@contextlib.contextmanager
def connected(address: str | None) -> Iterator[Cluster]:
    """Joins `address`, else RAY_ADDRESS (a job has it from Ray), else starts Ray here (and stops it at the end).

    Raises UsageError for the URL of a dashboard or of Ray Client and if Ray wants a token, StoreError if it can't be
    reached.
    """
    address = address or os.environ.get("RAY_ADDRESS") or None
    if address and address.startswith(("http://", "https://")):  # people set it for `ray job submit`
        raise UsageError(
            f"the Ray address {address} is that of a dashboard: give it to `ran-pipeline submit`, or unset RAY_ADDRESS"
        )
    if address and address.startswith("ray://"):  # Ray Client: this process would not be on the cluster's network
        raise UsageError(
            f"the Ray address {address} is that of Ray Client, which only hands calls on, and a run must be on the "
            "cluster itself: give the dashboard's URL, like http://head:8265, to `ran-pipeline submit`, or unset "
            "RAY_ADDRESS"
        )
    # A driver under `uv run` would make every worker rebuild its environment; Ray's C++ log is not for users.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # it reports its own retries as errors
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray
    from ray._private import auto_init_hook

    auto_init_hook.enable_auto_connect = False  # else what is still in flight at the end would start another Ray
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # the driver tells what failed, in one line
    if ray.is_initialized():
        yield size_of_cluster()
        return
    options: dict[str, Any] = {}
    if not address:
        options = {"num_cpus": local_cpus(), "include_dashboard": False}
        # Ray would write one to the home, which may not be writable, and clusters of this user would then ask for it.
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
            os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    try:
        # The C++ part announces its own log level on stderr.
        _send_notices_to_stderr()
        with _stderr_closed(), _command_line_untold(), _sigterm_kept():
            ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **options)
    except Exception as error:  # Ray raises the bare class when its processes don't come up in time
        if address and _is_about_a_token(error):
            raise token_wanted(address) from error
        raise NoClusterError(f"Ray at {address or 'this machine'} can't be reached: {error}") from error
    try:
        with head_watched(ray.get_runtime_context().gcs_address):
            yield size_of_cluster()
    finally:
        ray.shutdown()


def token_wanted(address: str) -> UsageError:
    """The cluster there lets nobody in without its token."""
    return UsageError(
        f"the cluster at {address} wants a token: set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH to a file with it"
    )


def _is_about_a_token(error: BaseException | None) -> bool:
    """Whether an AuthenticationError is behind it; of one that came over the network Ray hands on only the text."""
    while error is not None:
        if "AuthenticationError" in f"{type(error).__name__}: {error}":
            return True
        error = error.__cause__
    return False


def _send_notices_to_stderr() -> None:
    """Ray prints what befalls its nodes, whatever `log_to_driver` says, on standard output, where our data goes."""
    from ray._private import worker

    show = worker.print_to_stdstream
    if not getattr(show, "is_ours", False):

        def to_stderr(data: dict[str, Any], ignore_prefix: bool) -> None:
            show(data | {"is_err": True}, ignore_prefix)

        to_stderr.is_ours = True  # type: ignore[attr-defined]
        worker.print_to_stdstream = to_stderr


@contextlib.contextmanager
def _command_line_untold() -> Iterator[None]:
    """Ray notes a driver's command line as the job's entry point, which everybody on the cluster can read; there may be
    keys in it. Its own `ray job submit` notes what the user typed, so secrets belong into the environment there."""
    from ray._private import utils

    told = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "ran-pipeline"
    try:
        yield
    finally:
        utils.get_entrypoint_name = told


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray puts two handlers of its own over that of whoever calls it: one in Python that leaves at once, and a native
    one that prints a trace and aborts the process after three seconds."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


@contextlib.contextmanager
def _stderr_closed() -> Iterator[None]:
    """Nothing reaches file descriptor 2 inside; errors still come as exceptions."""
    sys.stderr.flush()
    kept = os.dup(2)
    with open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def size_of_cluster() -> Cluster:
    """What the nodes that are alive have, together and each."""
    import ray

    nodes: list[dict[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    cpus, gpus, memory = (tuple(node[name] for node in nodes if node.get(name)) for name in ("CPU", "GPU", "memory"))
    return Cluster(
        cpus=sum(cpus),
        gpus=sum(gpus),
        nodes=len(cpus),
        memory_gib=sum(memory) / 2**30 if memory else None,
        node_cpus=cpus,
        node_gpus=gpus,
    )


def check_output_is_shared(store: Store) -> None:
    """With several nodes, a local output must be one and the same folder on each; else CapacityError.

    A head without CPUs is one of them: no actor works there, but the driver does. Raises StoreError if a node does not
    answer.
    """
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    if len(alive) < 2 or not store.is_local:
        return
    nodes = [node for node in alive if node["Resources"].get("CPU")]
    path = f"_ran/probe-{uuid.uuid4().hex}"
    store.write_bytes(path, b"here")
    try:
        exists = ray.remote(num_cpus=0)(_exists)  # others' work may have taken every CPU of a node
        answers = [
            exists.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
                store, path
            )
            for node in nodes
        ]
        is_there = ray.get(answers, timeout=NODE_ANSWER_S)
        blind = [node["NodeManagerAddress"] for node, there in zip(nodes, is_there, strict=True) if not there]
    except ray.exceptions.RayError as error:
        raise StoreError(
            f"a node of the cluster did not answer ({type(error).__name__}); see `ray status` and run the same command "
            "again"
        ) from error
    finally:
        store.delete(path)
    if blind:
        raise CapacityError(
            f"output {store.url} is a local path that node(s) {', '.join(blind)} do not share; "
            "use a shared folder or an s3:// URL"
        )


def _exists(store: Store, path: str) -> bool:
    return store.exists(path)
