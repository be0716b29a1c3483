"""Start of a program: devices, several processes, the compilation cache, and SIGTERM."""

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
    """Chooses the devices, connects to the other processes and enables the compilation cache.

    Call it before anything uses a device. The cache is in `$XDG_CACHE_HOME/segjax`
    (`~/.cache/segjax`), or in `JAX_COMPILATION_CACHE_DIR` if that is set.

    Args:
      config: Configuration of the run.

    Raises:
      ValueError: If the machine has no device of the requested kind.
    """
    if config.device == "cpu":
        jax.config.update("jax_platforms", "cpu")
    if config.distributed and not jax.distributed.is_initialized():
        jax.distributed.initialize(config.coordinator, config.num_processes, config.process_id)
    if config.device is not None:
        _require_device(config.device)
    enable_compilation_cache()


def _require_device(kind: str) -> None:
    """Raises a ValueError if JAX does not use this kind of device by default."""
    if (found := jax.default_backend()) == kind:
        return
    try:
        jax.devices(kind)
        reason = "JAX already uses it in this process"
    except RuntimeError as error:
        reason = str(error).strip().split("\n")[0]
    raise ValueError(f"device: expected {kind}, got {found} ({reason})")


def enable_compilation_cache() -> None:
    """Stores compiled programs on disk, so that the next start is fast.

    It also hides what XLA logs, such as its warning of slow compilation. Errors are still raised.
    """
    if "TF_CPP_MIN_LOG_LEVEL" not in os.environ and not jax.distributed.is_initialized():
        jaxlib.utils.absl_set_min_log_level(3)
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        jax.config.update("jax_compilation_cache_dir", str(cache / "segjax"))


@contextlib.contextmanager
def stop_requests() -> Iterator[Callable[[int], bool]]:
    """Catches SIGTERM, which announces that a machine is preempted.

    Yields:
      Function `step -> bool`: whether to stop after this step, the same in all processes.
    """
    if jax.process_count() > 1:
        # JAX's own handler informs all processes, and they agree on a step.
        yield multihost_utils.reached_preemption_sync_point
        return
    asked = []
    before = signal.signal(signal.SIGTERM, lambda *_: asked.append(True))
    try:
        yield lambda step: bool(asked)
    finally:
        signal.signal(signal.SIGTERM, before)
