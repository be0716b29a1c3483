"""What every test runs under: eight simulated CPU devices, and shapes checked at every call."""

import functools
import importlib.metadata
import json
import os
from collections.abc import Callable
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = " ".join(
    [
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=8",
        # Compiling is most of the tests' work: these save a third of it. XLA aborts on flags that
        # it does not know.
        *(
            ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
            if importlib.metadata.version("jaxlib").startswith("0.10.")
            else []
        ),
    ]
)
os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # no test may profit from an earlier run

import hypothesis
import jax
import jaxtyping
import pytest

hypothesis.settings.register_profile(
    "segjax", deadline=None, derandomize=True, database=None, max_examples=25
)
hypothesis.settings.load_profile("segjax")


def _unchecked_pytrees(register):
    """JAX rebuilds a registered dataclass with placeholders, which no annotation allows for."""

    @functools.wraps(register)
    def register_unchecked(cls, *args, **kwargs):
        cls.__no_type_check__ = True
        return register(cls, *args, **kwargs)

    return register_unchecked


jax.tree_util.register_dataclass = _unchecked_pytrees(jax.tree_util.register_dataclass)
jaxtyping.install_import_hook("segjax", "beartype.beartype")


def pytest_addoption(parser):
    parser.addoption("--all", action="store_true", help="the slow tests too, as CI runs them")


def pytest_collection_modifyitems(config, items):
    """Without `--all`, what takes long and comparisons with peers are left out."""
    if not config.getoption("--all"):
        is_slow = lambda item: item.get_closest_marker("slow") or "parity" in item.path.parts
        slow = set(filter(is_slow, items))
        config.hook.pytest_deselected(items=list(slow))
        items[:] = [item for item in items if item not in slow]


@pytest.fixture
def unchecked_shapes():
    """Calls as users make them: annotations unchecked, so that the library's own errors show."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data sets that SEGJAX_TEST_DATA names."""
    return _folder("SEGJAX_TEST_DATA", "it names the folder with camvid/, dsb2018/, ...")


@pytest.fixture(scope="session")
def original_shapes() -> Callable[[str], dict[str, tuple[int, ...]]]:
    """By name, a published model's state dict: shapes by key, from SEGJAX_TEST_REFERENCE."""
    folder = _folder("SEGJAX_TEST_REFERENCE", "it names the folder with statedicts/")

    def read(name):
        shapes = json.loads((folder / "statedicts" / f"{name}.json").read_text())
        return {key: tuple(shape) for key, shape in shapes.items()}

    return read


def _folder(variable: str, meaning: str) -> Path:
    folder = os.environ.get(variable)
    if folder:
        return Path(folder)
    reason = f"{variable} is not set: {meaning}"
    return pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
