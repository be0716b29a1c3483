"""Starting up: several processes as one program, the compilation cache, and requests to stop."""

import contextlib
import os
import pathlib
import signal
from collections.abc import Callable, Iterator

import jax
import jaxlib.utils
from jax.experimental import multihost_utils

from segjax.training.config import TrainConfig


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
    enable_compilation_cache()


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


def enable_compilation_cache() -> None:
    """Keeps compiled programs on disk, so that a second start is fast.

    XLA's alarm that a program takes long to compile, which it writes as an error, is not shown;
    what fails is raised all the same.
    """
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ and not jax.distributed.is_initialized():
        jaxlib.utils.absl_set_min_log_level(3)
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "segjax"))


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Turns SIGTERM, with which machines are preempted, into a question to ask after each step.

    Yields:
      `step -> bool`, whether to stop after this step: the same answer in all processes.
    """
    if jax.process_count() > 1:
        # JAX's own handler tells every process, and makes them agree on the step.
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield lambda step: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)
