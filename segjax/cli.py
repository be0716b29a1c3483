"""The command line: `segjax train`, `evaluate`, `predict`, `convert`, `models` and `embed`."""

import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import absl.logging
import tyro

import segjax
from segjax.flags import check_flags, flags
from segjax.suggestions import unknown_name

if TYPE_CHECKING:
    from segjax.training.config import TrainConfig

_FORMAT = warnings.formatwarning
COMMANDS = {
    "train": "train a segmentation model: semantic, instance or panoptic",
    "evaluate": "evaluate a trained model on a data set",
    "predict": "segment your own images with a trained model",
    "convert": "convert weights to or from the format of the original model",
    "models": "list the models",
    "embed": "embed class names by the text tower of a CLIP",
}
TASKS = {
    "semantic": "predict a class for each pixel",
    "instance": "predict objects, each with a mask or box",
    "panoptic": "predict segments of things and stuff",
}
_LISTING = "\n".join(f"  {name:10}{purpose}" for name, purpose in COMMANDS.items())
_HELP = f"""usage: segjax COMMAND [OPTIONS]

{segjax.__doc__}

commands:
{_LISTING}

options:
  -h, --help  show this message; segjax COMMAND --help shows the options of a command
  --version   show the version
"""


_TRAIN_HELP = """usage: segjax train TASK [OPTIONS]

Train a segmentation model. segjax train TASK --help shows the options of a task.

tasks:
""" + "".join(f"  {name:10}{purpose}\n" for name, purpose in TASKS.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Errors that a user can fix, such as a wrong option or a missing file, are printed to stderr in
    one line. Any other exception is raised.

    Args:
      argv: Arguments; None takes those of the process.

    Returns:
      The exit code: 0 for success, 1 for failure, 2 for wrong usage, 130 for an interruption by the
      user, 143 for a training that SIGTERM has stopped.
    """
    match list(sys.argv[1:] if argv is None else argv):
        case ["-h" | "--help"]:
            print(_HELP, end="")
            return 0
        case ["--version"]:
            print(f"segjax {segjax.__version__}")
            return 0
        case [name, *arguments] if name in COMMANDS:
            return _guard(lambda: _run(name, arguments))
        case [name, *_]:
            return _fail(unknown_name("command", name, COMMANDS), 2)
        case _:
            print(_HELP, end="", file=sys.stderr)
            return 2


def train(default: "TrainConfig", *, description: str | None = None) -> int:
    """Runs an experiment: `segjax train` with other defaults.

    Args:
      default: Configuration that is used without any flags.
      description: Text above the options in `--help`.

    Returns:
      The exit code, as in `main`.
    """
    return _guard(lambda: _train(default, description=description))


def experiment(
    run: Callable[[Any, Any], None],
    options: Any,
    default: "TrainConfig",
    *,
    description: str | None = None,
) -> int:
    """Runs an experiment that has options of its own in addition to those of `segjax train`.

    Args:
      run: Function `(options, config)` that runs the experiment.
      options: Dataclass of the experiment's own options, with their defaults.
      default: Configuration of its training runs that is used without any flags.
      description: Text above the options in `--help`.

    Returns:
      The exit code, as in `main`.
    """

    def command() -> int:
        from segjax.training.arguments import parse_experiment

        run(*parse_experiment(options, default, description=description))
        return 0

    return _guard(command)


def _run(name: str, arguments: list[str]) -> int:
    if name == "train":
        return _train_task(arguments)
    command = importlib.import_module(f"segjax.commands.{name}")
    check_flags(arguments, flags(command.Options))
    return command.run(tyro.cli(command.Options, prog=f"segjax {name}", args=arguments))


def _train_task(arguments: list[str]) -> int:
    match arguments:
        case [task, *options] if task in TASKS:
            # Imported here, so that `segjax --help` does not wait for JAX.
            from segjax.training.config import CONFIGS

            return _train(CONFIGS[task](), prog=f"segjax train {task}", args=options)
        case ["-h" | "--help"]:
            print(_TRAIN_HELP, end="")
            return 0
    got = repr(arguments[0]) if arguments else "none"
    return _fail(f"train: expected a task, {' or '.join(TASKS)}, got {got}", 2)


def _train(default: "TrainConfig", **options: Any) -> int:
    from segjax.training.arguments import parse_args

    config = parse_args(default, **options)
    return importlib.import_module("segjax.commands.train").run(config)


def _guard(command: Callable[[], int]) -> int:
    """Runs a command, and prints errors that a user can fix in one line."""
    warnings.formatwarning = _format_warning
    absl.logging.set_verbosity(absl.logging.FATAL)  # Orbax also raises the errors that it logs
    try:
        return command()
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        return _fail(message, 1)


def _format_warning(
    message: Warning | str, category: type[Warning], filename: str, *place: Any, **line: Any
) -> str:
    """Formats segjax's own warnings as one line; those of other libraries stay as they are."""
    if category is UserWarning and f"{os.sep}segjax{os.sep}" in filename:
        return f"segjax: {message}\n"
    return _FORMAT(message, category, filename, *place, **line)


def _fail(message: str, code: int) -> int:
    print(f"segjax: {message}", file=sys.stderr)
    return code


def _explain(error: Exception) -> str | None:
    """The message of an error that the user can fix; None for a bug in the program."""
    match error:
        case OSError(strerror=str(reason), filename=str(file)):
            return f"{file}: {reason}"
        case OSError() | FloatingPointError():
            return str(error)
        case MemoryError():
            return _out_of_memory(error)
        case RuntimeError() if "RESOURCE_EXHAUSTED" in str(error):
            return _out_of_memory(error)
        case ValueError() | ImportError() if _raised_by_segjax(error):
            return str(error)
    return None


def _out_of_memory(error: Exception) -> str:
    reason = f" ({str(error).splitlines()[0]})" if str(error) else ""
    return f"out of memory{reason}: use a smaller batch size, image size or window"


def _raised_by_segjax(error: Exception) -> bool:
    """Whether segjax itself raised the error; a ValueError from elsewhere is a bug."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return frame.f_globals["__name__"].startswith("segjax.")
