"""The flags of command lines, and the message for an unknown flag."""

import dataclasses
import difflib
import itertools
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def flags(options: Any, prefix: str = "--") -> Iterator[str]:
    """The flags of the options in a dataclass (or instance of one) and in nested dataclasses."""
    hints = typing.get_type_hints(options if isinstance(options, type) else type(options))
    for name in (field.name for field in dataclasses.fields(options)):
        flag = name.replace("_", "-")
        if dataclasses.is_dataclass(inner := getattr(options, name, None)):
            yield from flags(inner, f"{prefix}{flag}.")
        else:
            yield prefix + flag
            if hints[name] is bool:
                yield f"{prefix}no-{flag}"


def check_flags(
    args: Sequence[str], known: Iterable[str], *, hints: Mapping[str, str] | None = None
) -> None:
    """Ends the process with a one-line message and exit code 2 if a flag is unknown.

    Args:
      args: Arguments of the command line.
      known: Flags that exist.
      hints: What to use instead of certain unknown flags.
    """
    known = ["--help", "--help-verbose", *known]
    for arg in itertools.takewhile(lambda arg: arg != "--", args):
        flag = arg.partition("=")[0].replace("_", "-")
        if not flag.startswith("--") or flag in known:
            continue
        if flag in (hints or {}):
            hint = (hints or {})[flag]
        else:
            ends = [name for name in known if name.endswith(f".{flag[2:]}")]
            near = ends or difflib.get_close_matches(flag, known, n=2)
            hint = f"did you mean {' or '.join(near)}?" if near else "see --help"
            hint = f"no such option; {hint}"
        print(f"segjax: {flag}: {hint}", file=sys.stderr)
        raise SystemExit(2)
