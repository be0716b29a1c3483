"""Names of data sources: KIND, KIND:NAME, or the path of a folder alone."""

import pathlib

KINDS = ("synthetic", "folder", "coco", "coco_panoptic", "tfds")


def full_spec(spec: str) -> str:
    """Adds the kind to the name of a data source that is only a path.

    Args:
      spec: as in `open_source`, or the path of a folder.

    Returns:
      "folder:PATH", "coco:PATH" or "coco_panoptic:PATH", by what the folder holds; a name that is
      not a path is unchanged.

    Raises:
      ValueError: if the folder has both objects and segments in COCO's format.

    Example:
      >>> from segjax.data.spec import full_spec
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
