"""What runs of training need: `runs.py` beside the tests, tiny data, a compilation cache."""

import sys
from pathlib import Path

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

sys.path.insert(0, str(Path(__file__).parent))

from runs import write_data


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """A folder of a few small images with void pixels."""
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def compiled(tmp_path_factory):
    """A compilation cache for all runs of this session, in this process and in others."""
    options = {
        "jax_enable_compilation_cache": True,
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield {name.upper(): str(value) for name, value in options.items()}
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
