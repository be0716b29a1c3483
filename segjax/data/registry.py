"""Opening of data sources by name, as on the command line."""

from typing import Any

from segjax import data
from segjax.data.source import Source
from segjax.data.spec import full_spec
from segjax.suggestions import unknown_name

# Each is imported when it is opened.
_NAMED = {"coco": "Coco", "coco_panoptic": "CocoPanoptic", "folder": "Folder", "tfds": "Tfds"}


def open_source(spec: str, split: str, **options: Any) -> Source:
    """Opens a data source by name.

    Args:
      spec: "synthetic", "synthetic:outlines", "folder:PATH", "coco:PATH", "coco_panoptic:PATH" or
        "tfds:NAME"; or the path of a folder alone (see `full_spec`).
      split: name of the split; "" for a folder without splits.
      **options: options of `Synthetic`, `Folder`, `Coco`, `CocoPanoptic` or `Tfds`.

    Returns:
      The source.

    Raises:
      ValueError: if there is no such kind of source; it suggests similar ones.
      DataError: if the source's files cannot be used.

    Example:
      >>> from segjax import data
      >>> len(data.open_source("synthetic", "val", length=5))
      5
    """
    kind, _, name = full_spec(spec).partition(":")
    if kind == "synthetic" and name in ("", "outlines"):
        if name:
            options["style"] = data.OUTLINES
        return data.Synthetic(split, **options)
    if kind in _NAMED and name:
        return getattr(data, _NAMED[kind])(name, split, **options)
    if kind in _NAMED or kind == "synthetic":
        named = ", ".join(f"{kind}:{'NAME' if kind == 'tfds' else 'PATH'}" for kind in _NAMED)
        kinds = f"synthetic, synthetic:outlines, {named}"
        raise ValueError(f"spec: expected one of {kinds}; got {spec!r}")
    raise ValueError(unknown_name("source", kind, ["synthetic", *_NAMED]))
