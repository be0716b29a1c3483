"""The command line of a training run, the same for `segjax train` and the experiments."""

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

# What other programs call it, and what to use here.
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
    "--gpus": "all devices are used; --device gpu makes sure of the kind, and CUDA_VISIBLE_DEVICES "
    "chooses some",
    "--amp": "use --dtype bfloat16",
    "--fp16": "use --dtype bfloat16",
    "--bf16": "use --dtype bfloat16",
    "--num-classes": "not needed: the data has its classes",
    "--dataset": "use --data",
    "--data-dir": "use --data PATH",
    "--data-path": "use --data PATH",
    "--num-workers": "use --workers",
    "--arch": "use --model",
    "--task": "use segjax train semantic, segjax train instance or segjax train panoptic",
    "--backbone": "use --model; `segjax models` lists them, each with its backbone",
    "--wandb": "use --trackers wandb",
    "--mlflow": "use --trackers mlflow",
    "--tensorboard": "not needed: --trackers is tensorboard unless told otherwise",
    "--report-to": "use --trackers",
    "--log-with": "use --trackers",
}


Config = TypeVar("Config", bound=TrainConfig)
Options = TypeVar("Options")
_OWN = "experiment"  # the group of an experiment's own options


@dataclasses.dataclass(frozen=True)
class _None:
    """No options."""


def parse_args(
    default: Config,
    *,
    description: str | None = None,
    prog: str | None = None,
    args: Sequence[str] | None = None,
) -> Config:
    """The configuration that a command line asks for.

    `--config FILE` replaces defaults, and other flags replace what is in the file; with another
    `--model` its options go too, and the options of its objective are those that there are.
    `--help` and wrong usage end the process.

    Args:
      default: what is trained without any flags.
      description: the text above the options in `--help`; None takes that of the configuration.
      prog: name of the command in `--help`; None takes that of the script.
      args: the arguments; None takes those of the process.

    Returns:
      The configuration.

    Raises:
      ValueError: for a file that is no configuration.
      OSError: for a file that cannot be read.

    Example:
      >>> from segjax.training import SemanticConfig
      >>> parse_args(SemanticConfig(), args=["--optimizer.warmup", "10"]).optimizer.warmup
      10
    """
    return parse_experiment(_None(), default, description=description, prog=prog, args=args)[1]


def parse_experiment(
    options: Options,
    default: Config,
    *,
    description: str | None = None,
    prog: str | None = None,
    args: Sequence[str] | None = None,
) -> tuple[Options, Config]:
    """The options of an experiment, and the configuration of its runs, from one command line.

    Args:
      options: Dataclass of the experiment's own options, with their defaults.
      default: Configuration of the runs without any flags.
      description: Text above the options in `--help`; None takes that of the configuration.
      prog: Name of the command in `--help`; None takes that of the script.
      args: Arguments; None takes those of the process.

    Returns:
      Both, as in `parse_args`.

    Raises:
      ValueError: for a file that is no configuration.
      OSError: for a file that cannot be read.
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
    own = groups.pop(_OWN, None)
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
    """A configuration from YAML, or from the `config.json` of a run.

    Args:
      path: of the file, or of the folder of a run.
      default: what holds where the file says nothing.

    Returns:
      The configuration.

    Raises:
      ValueError: for a file that is no configuration.
      OSError: where it cannot be read.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        values = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: expected YAML or JSON: {' '.join(str(error).split())}") from None
    if not isinstance(values, Mapping):
        raise ValueError(f"{path}: expected options by name, got {type(values).__name__}")
    if {"config", "classes"} <= values.keys():
        values = values["config"]
    try:
        return parse_config(values, default)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _nested(config: TrainConfig) -> list[str]:
    """The options that are dataclasses themselves."""
    return [name for name, value in vars(config).items() if dataclasses.is_dataclass(value)]


def _command_line(options: Any, default: TrainConfig) -> type:
    """A dataclass of the groups of options, from which tyro makes flags and help."""
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
        members.append((_OWN, Annotated[group, tyro.conf.arg(name=_OWN)], member))
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
    """A dataclass of some fields of `kind`, with these defaults."""
    hints, about = typing.get_type_hints(kind), _descriptions(kind)
    members: list[Any] = []
    if "run" in values:
        hints["config"], values = pathlib.Path | None, {"config": None, **values}
        about["config"] = (
            "YAML file with options by name, or the folder or config.json of a run; flags override "
            "what it says."
        )
    if options_there := values.get("model_options"):
        # tyro would make one flag of each option that is there, and refuse all others.
        values = {**values, "model_options": {}}
        told = " ".join(itertools.chain(*options_there.items()))
        about["model_options"] += f" With {values['model']}, unless given: {told}."
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
    """What the docstring of a dataclass, and those of its bases, say of its fields."""
    entries: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        _, _, attributes = inspect.cleandoc(base.__doc__ or "").partition("Attributes:\n")
        entries |= re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries.items()}


def _metavar(hint: Any) -> str | None:
    """What stands for the value of a flag in the help; None leaves it to tyro."""
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
    """The values that a flag is given."""
    for arg, following in itertools.pairwise([*args, ""]):
        if arg == flag and following:
            yield following
        elif arg.startswith(f"{flag}="):
            yield arg.removeprefix(f"{flag}=")
