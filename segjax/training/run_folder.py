"""The folder of a run: its configuration, the versions it ran with, and how to open it again."""

import dataclasses
import datetime
import importlib.metadata
import json
import pathlib
import sys
from typing import Any

import jax

from segjax.data import Classes
from segjax.pretrained import WeightsError
from segjax.pretrained.files import read_metadata
from segjax.training.config import FREE, TrainConfig, from_dict, to_dict, to_flat_dict

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
    # Complete or not there: a half-written configuration would bar the way of the next start.
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(content, indent=2) + "\n")
    draft.rename(path)


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
        if name.partition(".")[0] not in FREE and now.get(name) != before.get(name)
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
      ValueError: where the file is not of a run.
    """
    content: dict[str, Any] = json.loads(read_content(run))
    classes = content["classes"]
    if "scale" not in content["config"]:  # which decides what the model sees
        raise ValueError(f"{run}: expected the run's scale in its configuration, got none")
    return RunInfo(
        config=from_dict(TrainConfig, content["config"]),
        classes=Classes(
            tuple(classes["names"]),
            tuple(tuple(color) for color in classes["colors"]),
            tuple(classes.get("things", ())),
            tuple(classes.get("ids", ())),
        ),
        channels=content["channels"],
    )


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
    return path.read_text()
