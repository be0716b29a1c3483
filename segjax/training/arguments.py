"""The command line of a training run, the same for `segjax train` and the experiments."""

import copy
import dataclasses
import difflib
import functools
import inspect
import itertools
import pathlib
import re
import sys
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Annotated, Any

import tyro
import yaml

from segjax.data.spec import full_spec
from segjax.training.config import GROUPS, TrainConfig, from_dict

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
    "--backbone": "use --model; `segjax models` lists them, each with its backbone",
    "--wandb": "use --trackers wandb",
    "--mlflow": "use --trackers mlflow",
    "--tensorboard": "not needed: --trackers is tensorboard unless told otherwise",
    "--report-to": "use --trackers",
    "--log-with": "use --trackers",
}


def parse_args(
    default: TrainConfig,
    *,
    description: str | None = None,
    prog: str | None = None,
    args: Sequence[str] | None = None,
) -> TrainConfig:
    """The configuration that a command line asks for.

    `--config FILE` replaces defaults, and other flags replace what is in the file; with another
    `--model` its options go too. `--help` and wrong usage end the process.

    Args:
      default: what is trained without any flags.
      description: the text above the options in `--help`; None takes that of `TrainConfig`.
      prog: name of the command in `--help`; None takes that of the script.
      args: the arguments; None takes those of the process.

    Returns:
      The configuration.

    Raises:
      ValueError: for a file that is no configuration.
      OSError: for a file that cannot be read.

    Example:
      >>> parse_args(TrainConfig(), args=["--optimizer.warmup", "10"]).optimizer.warmup
      10
    """
    args = list(sys.argv[1:] if args is None else args)
    known = ["--config", *flags(TrainConfig)]
    check_flags(args, known, hints=HINTS)
    for path in _values("--config", args):
        default = read_file(pathlib.Path(path), default)
    parsed = vars(
        tyro.cli(
            _command_line(default),
            prog=prog,
            description=description or (TrainConfig.__doc__ or "").split("\n")[0],
            args=args,
        )
    )
    values: dict[str, Any] = {}
    for name, group in parsed.items():
        if name in _NESTED:
            values[name] = type(getattr(default, name))(**vars(group))
        else:
            values |= vars(group)
    del values["config"]
    if not values["model_options"] and values["model"] == default.model:
        values["model_options"] = default.model_options
    return TrainConfig(**values | {"data": full_spec(values["data"])})


def read_file(path: pathlib.Path, default: TrainConfig) -> TrainConfig:
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
        return from_dict(TrainConfig, values, default=default)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def flags(kind: type, prefix: str = "--") -> Iterator[str]:
    """The flags of a dataclass's fields, nested ones too."""
    for name, hint in typing.get_type_hints(kind).items():
        flag = prefix + name.replace("_", "-")
        if dataclasses.is_dataclass(hint):
            assert isinstance(hint, type)
            yield from flags(hint, f"{flag}.")
        else:
            yield flag
            if hint is bool:
                yield f"{prefix}no-{name.replace('_', '-')}"


def check_flags(
    args: Sequence[str], known: Iterable[str], *, hints: Mapping[str, str] | None = None
) -> None:
    """Ends the process with one line and exit code 2 where there is no such flag.

    Args:
      args: of the command line.
      known: the flags there are.
      hints: by flags that there are not, what to use instead.
    """
    known = ["--help", "--help-verbose", *known]
    for arg in itertools.takewhile(lambda arg: arg != "--", args):
        flag = arg.partition("=")[0].replace("_", "-")
        if not flag.startswith("--") or flag in known:
            continue
        if flag in (hints or {}):
            says = (hints or {})[flag]
        else:
            ends = [name for name in known if name.endswith(f".{flag[2:]}")]
            near = ends or difflib.get_close_matches(flag, known, n=2)
            says = (
                f"no such option; did you mean {' or '.join(near)}?"
                if near
                else ("no such option; --help lists them")
            )
        print(f"segjax: {flag}: {says}", file=sys.stderr)
        raise SystemExit(2)


_NESTED = [f.name for f in dataclasses.fields(TrainConfig) if dataclasses.is_dataclass(f.default)]


def _command_line(default: TrainConfig) -> type:
    """A dataclass of the groups of options, from which tyro makes flags and help."""
    groups: dict[str, dict[str, Any]] = {}
    title = ""
    for name, value in vars(default).items():
        title = GROUPS.get(name, title)
        if name not in _NESTED:
            groups.setdefault(title, {})[name] = value
        else:
            groups[name] = vars(value)
    about = _descriptions(TrainConfig)
    members: list[Any] = []
    for title, values in groups.items():
        if title in _NESTED:
            group = _group(type(getattr(default, title)), values)
            config = tyro.conf.arg(help=about[title])
        else:
            group = _group(TrainConfig, values, prefix_name=False)
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
    """What the docstring of a dataclass says of its fields."""
    _, _, attributes = inspect.cleandoc(kind.__doc__ or "").partition("Attributes:\n")
    entries = re.findall(r"^  (\w+): (.*(?:\n    .*)*)", attributes, re.MULTILINE)
    return {name: " ".join(text.split()) for name, text in entries}


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
