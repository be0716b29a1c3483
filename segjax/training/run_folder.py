"""The folder of a run: writes and reads its configuration."""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

import jax

from segjax.data import Classes
from segjax.data.checked import is_integer, is_text
from segjax.files import write_file
from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_metadata
from segjax.training.config import MAY_CHANGE_ON_RESUME, TrainConfig, to_dict, to_flat_dict
from segjax.training.resolve import parse_config

LIBRARIES = ("segjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
METADATA = "segjax"  # the key under which a weights file holds the content of `config.json`


def write_config(config: TrainConfig, classes: Classes, channels: int) -> None:
    """Writes `config.json`. If it exists, checks that it describes the same run.

    The file also holds the versions of the libraries, the devices and the time of the start.

    Args:
      config: Configuration of the run.
      classes: Classes of the data.
      channels: Number of channels of the images.

    Raises:
      ValueError: If the folder holds another run. The message says what differs.
    """
    path = config.run / "config.json"
    if path.exists():
        check_run(config)
        before = read_config(config.run)
        if (before.classes, before.channels) != (classes, channels):
            raise ValueError(
                f"{config.run}: expected the classes and channels of the run in this folder "
                f"({', '.join(before.classes.names)}; {before.channels}), got "
                f"{', '.join(classes.names)}; {channels}; choose another --run"
            )
        return
    if jax.process_index() != 0:
        return
    config.run.mkdir(parents=True, exist_ok=True)
    content = {
        "config": to_dict(config),
        "classes": dataclasses.asdict(classes),
        "channels": channels,
        "versions": {name: importlib.metadata.version(name) for name in LIBRARIES},
        "python": sys.version.split()[0],
        "devices": [str(device) for device in jax.devices()],
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
    write_file(path, json.dumps(content, indent=2) + "\n")


def check_run(config: TrainConfig) -> None:
    """Checks that a run that resumes has the configuration that it was started with.

    Args:
      config: Configuration of the run.

    Raises:
      ValueError: If the folder holds a run with other options. The message says which.
    """
    if not (config.run / "config.json").exists():
        return
    before, now = to_flat_dict(read_config(config.run).config), to_flat_dict(config)
    changed = [
        name
        for name in now | before
        if name.partition(".")[0] not in MAY_CHANGE_ON_RESUME and now.get(name) != before.get(name)
    ]
    if changed:
        raise ValueError(
            f"{config.run}: expected the configuration of the run in this folder "
            f"({', '.join(f'{name} {before.get(name)}' for name in changed)}), got "
            f"{', '.join(f'{name} {now.get(name)}' for name in changed)}; choose another --run or "
            "delete the folder"
        )


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """Description of a run.

    Attributes:
      config: Configuration of the run.
      classes: Classes of its data.
      channels: Number of channels of its images.
    """

    config: TrainConfig
    classes: Classes
    channels: int


def read_config(run: pathlib.Path) -> RunInfo:
    """Reads the description of a run.

    Args:
      run: Folder of the run, or a file that `segjax convert` has written from it.

    Returns:
      The configuration, classes and channels of the run.

    Raises:
      FileNotFoundError: If there is no such file, or no run in the folder.
      ValueError: If the file does not describe a run, or its content is invalid. The message names
        the file.
    """
    text, file = read_content(run), run if run.is_file() else run / "config.json"
    try:
        return _parse(json.loads(text))
    except RecursionError:
        raise ValueError(f"{file}: expected JSON, got text that is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: expected JSON, got other text ({error})") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _parse(content: Any) -> RunInfo:
    match content:
        case {
            "config": dict(config),
            "classes": {"names": list(names), "colors": list(colors), **kept},
            "channels": channels,
        }:
            things: Any = kept.get("things", [])
            ids: Any = kept.get("ids", [])
        case _:
            raise ValueError(
                "expected config, classes (with names and colors) and channels, got other content"
            )
    if "scale" not in config:  # guessing it would change what the model sees
        raise ValueError("config: expected the scale of the run, got none")
    number = len(names)
    checks = {
        "names": (number > 0 and all(map(is_text, names)), "one text or more"),
        "colors": (
            len(colors) == number and all(map(_is_color, colors)),
            f"{number} colours of three integers in 0..255",
        ),
        "things": (
            things == [] or _are(things, number, lambda x: type(x) is bool),
            f"{number} booleans",
        ),
        "ids": (
            ids == [] or _are(ids, number, lambda x: is_integer(x, -(2**53), 2**53)),
            f"{number} integers",
        ),
        "channels": (is_integer(channels, 1, 2**16), "an integer in 1..65536"),
    }
    for name, (is_valid, expected) in checks.items():
        if not is_valid:
            raise ValueError(f"{name}: expected {expected}, got another value")
    return RunInfo(
        config=parse_config(config),
        classes=Classes(tuple(names), tuple(map(tuple, colors)), tuple(things), tuple(ids)),
        channels=channels,
    )


def _are(values: Any, number: int, fine: Callable[[Any], bool]) -> bool:
    return isinstance(values, list) and len(values) == number and all(map(fine, values))


def _is_color(value: Any) -> bool:
    return _are(value, 3, lambda x: is_integer(x, 0, 255))


def read_content(run: pathlib.Path) -> str:
    """Reads the text of a run's `config.json`, or the same text in the metadata of a weights file.

    Args:
      run: Folder of the run, or a file that `segjax convert` has written from it.

    Returns:
      The text in JSON format.

    Raises:
      FileNotFoundError: If there is no such file, or no run in the folder.
      ValueError: If the file holds weights but no run.
    """
    if run.is_file():
        metadata = read_metadata(run)
        if METADATA not in metadata:
            raise WeightsError(f"{run}: expected a file converted from a run, got weights alone")
        return metadata[METADATA]
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run}: no run there (config.json is missing)")
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: expected UTF-8 text, got other bytes ({error})") from error
