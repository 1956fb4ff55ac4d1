"""Connection to Ray: to the cluster that RAY_ADDRESS names, or to a Ray started on this machine alone.

Ray is imported late, so that a user's mistakes are reported before that.
"""

import logging
import os
import shlex
import signal
import socket
import sys
import threading
from typing import Any
from urllib.parse import urlsplit

from deeplab_ray.cli import check_interrupted, origin
from deeplab_ray.errors import JobError, UserError
from deeplab_ray.machine import usable_cpus

_ENVIRONMENT = {
    # Under `uv run`, Ray would start its workers by uv, too, and upload the current folder.
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # Ray's default is one minute, which the dashboard may exceed on a busy machine.
    "RAY_DASHBOARD_STARTUP_TIMEOUT_S": "240",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_DATA_LOG_LEVEL": "WARNING",
    # Train's controller polls its workers at this interval, and each report waits for a poll.
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    # Otherwise everything that a training worker prints appears twice.
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    # Workers without a GPU keep CUDA_VISIBLE_DEVICES. This will be Ray's default; until then Ray warns if it is unset.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
_CONNECT_TIMEOUT_S = 5


def set_environment() -> None:
    """Set Ray's environment variables unless the user has set them. Ray reads some of them when it is imported."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)


def start_ray(cpus: int | None = None) -> None:
    """Connect to the cluster that RAY_ADDRESS names (as `ray job submit` does), or start one here.

    cpus: number of logical CPUs of a Ray that is started here.
    Raises UserError if the named cluster cannot be reached (after 5 s) or refuses the token (Ray tries for 20 s), and
    JobError if Ray cannot be started here, for example because the machine is too busy.
    """
    set_environment()
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        # A small machine gets more logical CPUs than it has, since workers and Ray Data mostly wait for each other.
        cpus = cpus or max(4, usable_cpus())
        # Nothing preempts this machine, and the watcher would be one more process for every run.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
        # Ray Train asks the dashboard's process for the state of its actors, and complains if there is none.
        try:
            _init(address="local", num_cpus=cpus, include_dashboard=True)
        except Exception as error:  # Ray raises plain Exception if its processes do not answer in time
            raise JobError(f"Ray did not start on this machine ({origin(error)}): {_advice(error)}") from error
        return
    if address != "auto":
        _check_reachable(address)
    try:
        _init(address=address)
    except (ConnectionError, RuntimeError) as error:
        raise UserError(
            f"Ray at RAY_ADDRESS={address} refused the connection ({origin(error)}): check that the cluster is up, "
            "and that RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH holds its token"
        ) from error


def _init(**options: Any) -> None:
    import ray

    check_interrupted()
    if shlex.quote(sys.executable) != sys.executable:
        # Ray passes the path to a shell without quoting it.
        options["runtime_env"] = {"py_executable": shlex.quote(sys.executable)}
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ray.init(logging_level=logging.WARNING, **options)
    # Ray has put its own in their place, which end the process at once, some with a stack of C++ on the terminal.
    if threading.current_thread() is threading.main_thread():
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)


def _advice(error: Exception) -> str:
    """Return what the user can do if Ray did not start."""
    if "timed out" in str(error) or isinstance(error, TimeoutError):
        return (
            "the machine is too busy, or a container has too little CPU time or memory: wait or close other programs, "
            "then try again, or set RAY_ADDRESS to the host:port of a running cluster"
        )
    return "fix that, or set RAY_ADDRESS to the host:port of a running cluster"


def _check_reachable(address: str) -> None:
    parts = urlsplit(address if "://" in address else f"//{address}")
    try:
        if parts.scheme not in ("", "ray") or not parts.hostname or not parts.port:
            raise UserError(f"RAY_ADDRESS={address} is not a cluster's address: set it to host:port, or unset it")
        with socket.create_connection((parts.hostname, parts.port), _CONNECT_TIMEOUT_S):
            pass
    except (OSError, ValueError) as error:
        raise UserError(
            f"no Ray answers at RAY_ADDRESS={address} ({error}): start the cluster, correct the address, or "
            "unset it to run on this machine alone"
        ) from None
