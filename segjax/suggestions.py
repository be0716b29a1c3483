"""'Did you mean' messages for unknown names."""

import difflib
from collections.abc import Iterable

_MANY = 20  # names; longer lists are left out beside a suggestion


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown name: similar names, and all names if they are few.

    Args:
      what: kind of the name, such as "split".
      name: the unknown name.
      known: the known names.

    Returns:
      The message, one line.

    Example:
      >>> from segjax.suggestions import unknown_name
      >>> unknown_name("split", "trian", ["train", "val"])
      "unknown split 'trian': did you mean 'train'? (there are: train, val)"
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known)
    if near and len(known) > _MANY:
        return f"unknown {what} {name!r}: did you mean {' or '.join(map(repr, near))}?"
    question = f": did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"unknown {what} {name!r}{question} (there are: {', '.join(known) or 'none'})"
