"""The folder of a run: its configuration, the versions it ran with, and how to open it again."""

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
from segjax.training.config import RESUMABLE, TrainConfig, to_dict, to_flat_dict
from segjax.training.resolve import parse_config

LIBRARIES = ("segjax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "grain")
METADATA = "segjax"  # under which a file of weights has the content of `config.json`


def write_config(config: TrainConfig, classes: Classes, channels: int) -> None:
    """Writes `config.json`, or holds a run that goes on to the one it has.

    Args:
      config: of the run.
      classes: that it learns.
      channels: of its images.

    Raises:
      ValueError: where the folder holds a run that computes something else; it names what differs.
    """
    path = config.run / "config.json"
    if path.exists():
        check_run(config)
        before = read_config(config.run)
        if (before.classes, before.channels) != (classes, channels):
            raise ValueError(
                f"{config.run} holds a run of other classes or channels "
                f"({', '.join(before.classes.names)}; {before.channels}) than the data has "
                f"({', '.join(classes.names)}; {channels}). Give another --run."
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
    """Holds a run that resumes to the configuration it has.

    Args:
      config: of the run.

    Raises:
      ValueError: where the folder holds a run that computes something else; it names what differs.
    """
    if not (config.run / "config.json").exists():
        return
    before, now = to_flat_dict(read_config(config.run).config), to_flat_dict(config)
    changes = "; ".join(
        f"{name} was {before.get(name)}, is {now.get(name)}"
        for name in now | before
        if name.partition(".")[0] not in RESUMABLE and now.get(name) != before.get(name)
    )
    if changes:
        raise ValueError(
            f"{config.run} holds a run of another configuration ({changes}). Give another --run, "
            "or delete that folder."
        )


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What a run folder says of its model.

    Attributes:
      config: of the run.
      classes: that it learnt.
      channels: of its images.
    """

    config: TrainConfig
    classes: Classes
    channels: int


def read_config(run: pathlib.Path) -> RunInfo:
    """What a run's folder, or the file that `segjax convert` made of it, says of its model.

    Args:
      run: the folder, or the file.

    Returns:
      The run's configuration, classes and channels.

    Raises:
      FileNotFoundError: where the folder holds no run, or there is no such file.
      ValueError: where the file is not of a run, or what it says cannot be; names it.
    """
    text, file = read_content(run), run if run.is_file() else run / "config.json"
    try:
        return _parse(json.loads(text))
    except RecursionError:
        raise ValueError(f"{file}: is no readable JSON (nested too deeply)") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{file}: is no JSON ({error})") from error
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
            raise ValueError("expected config, classes with names and colors, and channels")
    if "scale" not in config:  # which decides what the model sees
        raise ValueError("expected the run's scale in its configuration, got none")
    number = len(names)
    valid = {
        "names": number > 0 and all(map(is_text, names)),
        "colors": len(colors) == number and all(map(_is_color, colors)),
        "things": things == [] or _are(things, number, lambda x: type(x) is bool),
        "ids": ids == [] or _are(ids, number, lambda x: is_integer(x, -(2**53), 2**53)),
        "channels": is_integer(channels, 1, 2**16),
    }
    if wrong := [name for name, fine in valid.items() if not fine]:
        raise ValueError(f"{wrong[0]}: not as a run of {number} classes has them")
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
    """The text of a run's `config.json`, which a file of its weights has in its metadata.

    Args:
      run: the folder, or the file.

    Returns:
      The text, JSON.

    Raises:
      FileNotFoundError: where the folder holds no run, or there is no such file.
      ValueError: where the file is not of a run.
    """
    if run.is_file():
        metadata = read_metadata(run)
        if METADATA not in metadata:
            raise WeightsError(f"{run}: expected the file of a run, got weights alone")
        return metadata[METADATA]
    path = run / "config.json"
    if not path.is_file():
        raise FileNotFoundError(f"{run}: no run there (config.json is missing)")
    try:
        return path.read_text()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text ({error})") from error
