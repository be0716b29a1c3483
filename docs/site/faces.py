"""What the API pages need to know of segjax that its source does not say in Google's style."""

import re

import griffe

SHARED = re.compile(r"^  (\*{0,2}\w+(?:, \*{0,2}\w+)+):(.*(?:\n    .*)*)", re.MULTILINE)


class Faces(griffe.Extension):
    """Names that packages show, and entries of docstrings."""

    def on_module_members(self, *, mod: griffe.Module, **kwargs) -> None:
        """A package shows what it imports for type checkers; each is loaded when it is used."""
        if mod.is_init_module:
            mod.exports = [name for name, member in mod.members.items() if member.is_alias]

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        if obj.docstring is not None:
            text = re.sub(r"^Example:$", "Examples:", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = SHARED.sub(_each, text)


def _each(entry: re.Match) -> str:
    """One entry for each parameter of a shared one."""
    return "\n".join(f"  {name}:{entry[2]}" for name in entry[1].split(", "))
