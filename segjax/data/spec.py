"""How a source of data is named: KIND, KIND:NAME, or the path of a folder alone."""

import pathlib

KINDS = ("synthetic", "folder", "coco", "coco_panoptic", "tfds")


def full_spec(spec: str) -> str:
    """The text that names a source with its kind, where it is but a path.

    Args:
      spec: as in `open_source`, or the path of a folder.

    Returns:
      "folder:PATH", "coco:PATH" or "coco_panoptic:PATH", by what the folder holds; what is no path
      as it is.

    Raises:
      ValueError: for a folder with both objects and segments in COCO's format.

    Example:
      >>> full_spec("./photos"), full_spec("synthetic")
      ('folder:./photos', 'synthetic')
    """
    kind = spec.partition(":")[0]
    root = pathlib.Path(spec).expanduser()
    if kind in KINDS or not (root.is_dir() or spec.startswith((".", "/", "~"))):
        return spec
    found = {
        "coco": any(root.glob("*/instances*.json")),
        "coco_panoptic": any(root.glob("*/panoptic*.json")),
    }
    if all(found.values()):
        raise ValueError(
            f"data: expected coco:{spec} (its objects) or coco_panoptic:{spec} (its segments), "
            f"got {spec}, which holds both"
        )
    return f"{next((kind for kind in found if found[kind]), 'folder')}:{spec}"
