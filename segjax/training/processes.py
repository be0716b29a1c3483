"""Starting up: several processes as one program, the compiler, and requests to stop."""

import contextlib
import os
import pathlib
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import multihost_utils
from jaxlib import utils

from segjax.training.config import TrainConfig

STOPPED = 128 + signal.SIGTERM  # the exit code of what SIGTERM has stopped, as shells say it
_PATIENCE = 10  # seconds after which another SIGTERM is not the same request once more
_FATAL = 3  # absl's level of messages after which the process ends


def start(config: TrainConfig) -> None:
    """Chooses the devices, joins the other processes and keeps compiled programs on disk.

    Must come before any use of a device. The cache lies in `$XDG_CACHE_HOME/segjax`
    (`~/.cache/segjax`), unless `JAX_COMPILATION_CACHE_DIR` says otherwise.

    Args:
      config: of the run.

    Raises:
      ValueError: where this machine has no such device.
    """
    if config.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if config.distributed and not jax.distributed.is_initialized():
        jax.distributed.initialize(config.coordinator, config.num_processes, config.process_id)
    if config.device is not None:
        _require_device(config.device)
    set_up_compiler()


def _require_device(kind: str) -> None:
    """Accelerators come first in JAX by themselves; here only whether there is one."""
    if (found := jax.default_backend()) == kind:
        return
    try:
        jax.devices(kind)
        reason = "which JAX uses already in this process"
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
    raise ValueError(f"device: expected {kind}, got {found} ({reason})")


def set_up_compiler() -> None:
    """Keeps compiled programs on disk, so that a second start is fast, and the compiler quiet.

    Where it takes long XLA says so as an error, which it is not: errors come as exceptions.
    Several processes keep such messages, for what happens between them has no other way to show.
    `TF_CPP_MIN_LOG_LEVEL=0` keeps all.
    """
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "segjax"))
    if os.environ.get("TF_CPP_MIN_LOG_LEVEL") != "0" and not jax.distributed.is_initialized():
        utils.absl_set_min_log_level(_FATAL)


@contextlib.contextmanager
def cache_events() -> Iterator[set[str]]:
    """What happens with kept programs: "cache_hits" where one is read, "cache_misses" where not.

    Yields:
      A set to which the events are added.
    """
    seen: set[str] = set()

    def listen(event: str, **_: Any) -> None:
        seen.add(event.rpartition("/")[2])

    jax.monitoring.register_event_listener(listen)
    try:
        yield seen
    finally:
        jax.monitoring.unregister_event_listener(listen)


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Turns SIGTERM, with which machines are preempted, into a question to ask after each step.

    One that comes a while after the first ends the process at once.

    Yields:
      `step -> bool`, whether to stop after this step: the same answer in all processes.
    """
    if jax.process_count() > 1:
        # JAX's own handler tells every process, and makes them agree on the step.
        yield multihost_utils.reached_preemption_sync_point
        return
    asked: list[float] = []

    def ask(*_: Any) -> None:
        asked.append(time.monotonic())
        if asked[-1] - asked[0] > _PATIENCE:
            raise SystemExit(STOPPED)

    before = signal.signal(signal.SIGTERM, ask)
    try:
        yield lambda step: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)
