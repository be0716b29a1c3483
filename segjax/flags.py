"""The flags of command lines, and what to say where there is no such flag."""

import dataclasses
import difflib
import itertools
import sys
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any


def flags(options: Any, prefix: str = "--") -> Iterator[str]:
    """The flags of a dataclass, or of an instance of one, and of the dataclasses that it holds."""
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
