"""What is said of a name that does not exist."""

import difflib
from collections.abc import Iterable

_MANY = 20  # names, more than which nobody wants to read beside a near one


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for a name that does not exist: the near matches, and all if they are not many.

    Args:
      what: what was named, such as "split".
      name: what came.
      known: the names that exist.

    Returns:
      One line.

    Example:
      >>> unknown_name("split", "trian", ["train", "val"])
      "unknown split 'trian': did you mean 'train'? (there are: train, val)"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known)
    if near and len(known) > _MANY:
        return f"unknown {what} {name!r}: did you mean {' or '.join(map(repr, near))}?"
    question = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {what} {name!r}{question} (there are: {', '.join(known) or 'none'})"
