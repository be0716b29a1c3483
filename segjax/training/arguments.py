"""The command line of training runs, used by `segjax train` and by the experiments."""

import copy
import dataclasses
import functools
import inspect
import itertools
import pathlib
import re
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import tyro
import yaml

from segjax.data.spec import full_spec
from segjax.flags import check_flags, flags
from segjax.training.config import GROUPS, TrainConfig
from segjax.training.resolve import parse_config, with_model

# Flags of other programs, and what to use instead.
HINTS = {
    "--resume": "run the same command again; it resumes from the last checkpoint of --run",
    "--epochs": "use --steps; an epoch is as many steps as images / --batch-size",
    "--lr": "use --optimizer.learning-rate",
    "--wd": "use --optimizer.weight-decay",
    "--batch": "use --batch-size",
    "--bs": "use --batch-size",
    "--img-size": "use --size HEIGHT WIDTH",
    "--imgsz": "use --size HEIGHT WIDTH",
    "--image-size": "use --size HEIGHT WIDTH",
    "--crop-size": "use --size HEIGHT WIDTH",
    "--output": "use --run FOLDER",
    "--output-dir": "use --run FOLDER",
    "--work-dir": "use --run FOLDER",
    "--project": "use --run FOLDER",
    "--pretrained": "use --weights FILE",
    "--checkpoint": "use --weights FILE; to resume, run the same command again",
    "--gpus": "all devices are used; CUDA_VISIBLE_DEVICES selects some of them",
    "--amp": "use --dtype bfloat16",
    "--fp16": "use --dtype bfloat16",
    "--bf16": "use --dtype bfloat16",
    "--num-classes": "not needed: the data set defines the classes",
    "--dataset": "use --data",
    "--data-dir": "use --data PATH",
    "--data-path": "use --data PATH",
    "--num-workers": "use --workers",
    "--arch": "use --model",
    "--task": "use segjax train semantic, segjax train instance or segjax train panoptic",
    "--backbone": "use --model; `segjax models` lists all models with their backbones",
    "--wandb": "use --trackers wandb",
    "--mlflow": "use --trackers mlflow",
    "--tensorboard": "not needed: --trackers is tensorboard by default",
    "--report-to": "use --trackers",
    "--log-with": "use --trackers",
}


Config = TypeVar("Config", bound=TrainConfig)
Options = TypeVar("Options")
_EXPERIMENT = "experiment"  # the group of an experiment's own options in `--help`


@dataclasses.dataclass(frozen=True)
class _NoOptions:
    """The options of an experiment without options of its own."""


def parse_args(
    default: Config,
    *,
    description: str | None = None,
    prog: str | None = None,
    args: Sequence[str] | None = None,
) -> Config:
    """Parses the command line of a training run.

    Flags override `--config FILE`, which overrides `default`. `--model` decides which options of
    the objective there are. `--help` and wrong usage end the process.

    Args:
      default: Configuration that is used without any flags.
      description: Text above the options in `--help`; None takes it from the configuration's
        docstring.
      prog: Name of the command in `--help`; None takes the name of the script.
      args: Arguments; None takes those of the process.

    Returns:
      The configuration.

    Raises:
      ValueError: If the file of `--config` is not a configuration.
      OSError: If that file cannot be read.

    Example:
      >>> from segjax.training import SemanticConfig
      >>> parse_args(SemanticConfig(), args=["--optimizer.warmup", "10"]).optimizer.warmup
      10
    """
    return parse_experiment(_NoOptions(), default, description=description, prog=prog, args=args)[1]


def parse_experiment(
    options: Options,
    default: Config,
    *,
    description: str | None = None,
    prog: str | None = None,
    args: Sequence[str] | None = None,
) -> tuple[Options, Config]:
    """Parses the command line of an experiment that has options of its own.

    Args:
      options: Dataclass of the experiment's own options, with their defaults.
      default: Configuration of the runs that is used without any flags.
      description: Text above the options in `--help`; None takes it from the configuration's
        docstring.
      prog: Name of the command in `--help`; None takes the name of the script.
      args: Arguments; None takes those of the process.

    Returns:
      The options of the experiment, and the configuration of its runs.

    Raises:
      ValueError: If the file of `--config` is not a configuration.
      OSError: If that file cannot be read.
    """
    args = list(sys.argv[1:] if args is None else args)
    for path in _values("--config", args):
        default = read_file(pathlib.Path(path), default)
    *_, model = default.model, *_values("--model", args)
    default = with_model(default, model)
    check_flags(args, ["--config", *flags(options), *flags(default)], hints=HINTS)
    parsed: Any = tyro.cli(
        _command_line(options, default),
        prog=prog,
        description=description or (type(default).__doc__ or "").split("\n")[0],
        args=args,
    )
    groups: dict[str, Any] = dict(vars(parsed))
    own = groups.pop(_EXPERIMENT, None)
    values: dict[str, Any] = {}
    for name, group in groups.items():
        if name in _nested(default):
            values[name] = type(getattr(default, name))(**vars(group))
        else:
            values |= vars(group)
    del values["config"]
    values["model_options"] = values["model_options"] or default.model_options
    config = type(default)(**values | {"data": full_spec(values["data"])})
    return options if own is None else type(options)(**vars(own)), config


def read_file(path: pathlib.Path, default: Config) -> Config:
    """Reads a configuration from a YAML file, or from the `config.json` of a run.

    Args:
      path: Path of the file, or of the folder of a run.
      default: Configuration with values for everything that is not in the file.

    Returns:
      The configuration.

    Raises:
      ValueError: If the file is not a configuration.
      OSError: If it cannot be read.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path}: expected YAML or JSON, got other text ({reason})") from None
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected options by name, got {type(values).__name__}")
    if {"config", "classes"} <= values.keys():
        values = values["config"]
    try:
        return parse_config(values, default)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _nested(config: TrainConfig) -> list[str]:
    """The names of the options that are dataclasses themselves."""
    return [name for name, value in vars(config).items() if dataclasses.is_dataclass(value)]


def _command_line(options: Any, default: TrainConfig) -> type:
    """A dataclass with one field per group of options, from which tyro makes the flags and help."""
    groups: dict[str, dict[str, Any]] = {}
    title, nested = "", _nested(default)
    for name, value in vars(default).items():
        title = GROUPS.get(name, title)
        if name not in nested:
            groups.setdefault(title, {})[name] = value
        else:
            groups[name] = vars(value)
    about = _descriptions(type(default))
    members: list[Any] = []
    if vars(options):
        group = _group(type(options), vars(options), prefix_name=False)
        member = dataclasses.field(default_factory=group)
        members.append((_EXPERIMENT, Annotated[group, tyro.conf.arg(name=_EXPERIMENT)], member))
    for title, values in groups.items():
        if title in nested:
            group = _group(type(getattr(default, title)), values)
            config = tyro.conf.arg(help=about[title])
        else:
            group = _group(type(default), values, prefix_name=False)
            config = tyro.conf.arg(name=title)
        member = dataclasses.field(default_factory=group)
        members.append((title.replace(" ", "_"), Annotated[group, config], member))
    return dataclasses.make_dataclass("Options", members)


def _group(kind: type, values: Mapping[str, Any], **options: Any) -> type:
    """A dataclass of some of the fields of `kind`, with these values as defaults."""
    hints, about = typing.get_type_hints(kind), _descriptions(kind)
    members: list[Any] = []
    if "run" in values:
        hints["config"], values = pathlib.Path | None, {"config": None, **values}
        about["config"] = (
            "Configuration to start from: a YAML file with options by name, or the folder of a "
            "run. Flags override it."
        )
    if model_options := values.get("model_options"):
        # tyro would make a flag of each model option that has a default, and refuse all others.
        values = {**values, "model_options": {}}
        shown = " ".join(itertools.chain(*model_options.items()))
        about["model_options"] += f" Default for {values['model']}: {shown}."
    for name, value in values.items():
        config = tyro.conf.arg(
            help=about[name],
            metavar=_metavar(hints[name]),
            help_behavior_hint=_shown,
            **options,
        )
        member = dataclasses.field(default_factory=functools.partial(copy.copy, value))
        members.append((name, Annotated[hints[name], config], member))
    return dataclasses.make_dataclass(kind.__name__, members, namespace={"__doc__": " "})


def _shown(default: str) -> str:
    return "" if default in ("", "None") else f"(default: {default})"


def _descriptions(kind: type) -> dict[str, str]:
    """The descriptions of a dataclass's fields in its docstring and those of its bases."""
    entries: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        entries |= re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries.items()}


def _metavar(hint: Any) -> str | None:
    """The placeholder for the value of a flag in the help; None leaves it to tyro."""
    if typing.get_origin(hint) is dict:
        return "[NAME VALUE ...]"
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return None
    kind = typing.get_args(hint)[0]
    match typing.get_origin(kind):
        case None:
            return kind.__name__.upper()
        case typing.Literal:
            return f"{{{','.join(typing.get_args(kind))}}}"
        case _:
            return f"{typing.get_args(kind)[0].__name__.upper()} ..."


def _values(flag: str, args: Sequence[str]) -> Iterator[str]:
    """The values of a flag in a command line."""
    for arg, following in itertools.pairwise([*args, ""]):
        if arg == flag and following:
            yield following
        elif arg.startswith(f"{flag}="):
            yield arg.removeprefix(f"{flag}=")
