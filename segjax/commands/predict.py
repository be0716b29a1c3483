"""`segjax predict`."""

import contextlib
import dataclasses
import functools
import glob
import itertools
import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from rich.console import Console

from segjax.commands.results import Results, find_listed, number_images, provide_classes
from segjax.commands.trained import ModelOptions, load
from segjax.data.errors import DataError
from segjax.progress import track

if TYPE_CHECKING:
    from segjax.data.images import ImageHeader

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Predicts images of any size with a trained model.

    For each image it writes NAME_overlay.png, the image with the prediction drawn on it. Semantic
    models also write NAME.png, whose values are class ids; instance models NAME.json, a list of
    objects with class, score, box (x, y, width, height) and mask (COCO's compressed run-length
    encoding); panoptic models NAME.png, whose colours are segment ids (red + 256 green + 65536
    blue; 0 is void), and NAME.json, a list of the segments. NAME is the name of the image without
    its suffix, numbered if several images have the same.

    For all images together, semantic models write classes.json with the names of the class ids,
    and the others results.json, which pycocotools (objects) or panopticapi (segments) load. Class
    ids are those of the data set that the model was trained on.

    Attributes:
      inputs: Images, folders of images, or patterns such as 'photos/**/*.jpg'.
      output: Folder for the results; made if missing.
      probabilities: Also write NAME.npz with `probs`, float16 [height, width, classes] (semantic
        task).
      score_threshold: Least score of the objects that are written (instance task).
      annotations: JSON file in COCO's format that lists the images, for their ids in results.json;
        images are turned by their EXIF orientation only if that gives the listed size. Without it,
        ids are the numbers that the files are named by, or 1, 2, 3 ..., and all images are turned
        (instance and panoptic tasks).
    """

    inputs: Annotated[
        tyro.conf.Positional[tuple[pathlib.Path, ...]], tyro.conf.arg(metavar="IMAGES")
    ]
    output: pathlib.Path
    probabilities: bool = False
    score_threshold: float = 0.5
    annotations: pathlib.Path | None = None


def run(options: Options) -> int:
    """Writes the predictions; returns 1 if an image could not be read."""
    # Not sooner: `--help` need not wait for OpenCV.
    from segjax.data.images import warn_of_shades

    files = find_images(options.inputs)
    if options.output.resolve() in {file.parent.resolve() for file in files}:
        raise ValueError(f"--output {options.output}: expected a folder without images to predict")
    predictor = load(options, score_threshold=options.score_threshold)
    task = predictor.config.task
    if options.probabilities and task != "semantic":
        raise ValueError(f"--probabilities: no effect for the {task} task of {options.run}")
    if options.score_threshold != Options.score_threshold and task != "instance":
        raise ValueError(f"--score-threshold: no effect for the {task} task of {options.run}")
    if options.annotations is not None and task == "semantic":
        raise ValueError(f"--annotations: no effect for the {task} task of {options.run}")
    listed = {} if options.annotations is None else find_listed(files, options.annotations)
    ids = {file: number for file, (number, _) in listed.items()} or number_images(files)
    options.output.mkdir(parents=True, exist_ok=True)
    if task == "semantic":
        provide_classes(options.output / "classes.json", predictor.classes)
    headers, max_value = _headers(files), predictor.config.max_value
    deep = next((file for file, header in headers.items() if header.deep), None)
    if deep and max_value is None:
        warn_of_shades(deep)
    sizes = {file: header.upright for file, header in headers.items()}
    sizes |= {file: image.size for file, (_, image) in listed.items()}
    canvases = _plan(sizes, options.canvases if predictor.canvas_invariant else 0)
    results = Results(predictor.classes, ids)

    console = Console(stderr=True)
    tell = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    unread = 0
    named = list(zip(files, output_names(files), strict=True))
    for file, name in track(named, "predicting"):
        try:
            picture: Any = file
            if listed:
                image = listed[file][1].checked()
                picture = dataclasses.replace(image, max_value=max_value).read()
            prediction = predictor(picture, canvas=canvases.get(file))
        except DataError as error:
            unread += 1
            tell(f"segjax: {error}")
            continue
        if name != file.stem:
            tell(f"{file}: saved as {name}")
        extra = {"probabilities": True} if options.probabilities else {}
        prediction.save(options.output / name, **extra)
        results.add(file, name, prediction)
    if task == "instance":
        results.write_objects(options.output / "results.json")
    if task == "panoptic":
        results.write_segments(options.output / "results.json")
    print(f"{len(files) - unread} of {len(files)} images predicted: {options.output}")
    return 1 if unread else 0


def _headers(files: list[pathlib.Path]) -> dict[pathlib.Path, "ImageHeader"]:
    """The headers of the files that can be read."""
    from segjax.data.images import image_header, read_bytes

    headers = {}
    for file in files:
        with contextlib.suppress(DataError):
            headers[file] = image_header(read_bytes(file))
    return headers


def _plan(
    sizes: dict[pathlib.Path, tuple[int, int]], most: int
) -> dict[pathlib.Path, tuple[int, int]]:
    """The canvas of each file."""
    import numpy as np

    from segjax.data import plan_canvases

    if not sizes:
        return {}
    planned = plan_canvases(np.array(list(sizes.values())), most=most)
    return {
        file: (height, width) for file, (height, width) in zip(sizes, planned.tolist(), strict=True)
    }


def find_images(inputs: Iterable[pathlib.Path]) -> list[pathlib.Path]:
    """Finds image files, each once, in the order of the inputs and then of the names.

    Args:
      inputs: files, folders (whose files with an image suffix are taken), and patterns.

    Returns:
      The files.

    Raises:
      DataError: if an input matches no file, or there is no input.
    """
    files: dict[pathlib.Path, None] = {}
    for path in inputs:
        if path.exists():
            matches = [path]
        else:
            matches = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))
        found = [file for match in matches for file in _images_at(match)]
        if not found:
            raise DataError(f"{path}: no image found")
        files |= dict.fromkeys(found)
    if not files:
        raise DataError("IMAGES: expected images, folders or patterns, got none")
    return list(files)


def output_names(files: Iterable[pathlib.Path]) -> list[str]:
    """Names the results of each file: its stem, numbered if the name is already taken.

    Args:
      files: the files, in the order in which they are named.

    Returns:
      A name for each file.

    Example:
      >>> output_names([pathlib.Path(p) for p in ("a/x.jpg", "b/x.jpg", "b/x_overlay.jpg")])
      ['x', 'x_2', 'x_overlay_2']
    """
    names: list[str] = []
    taken = {"results"}  # the file of all images
    for file in files:
        numbered = (f"{file.stem}_{number}" for number in itertools.count(2))
        for name in itertools.chain([file.stem], numbered):
            # Some file systems ignore case.
            results = {name.casefold(), f"{name}_overlay".casefold()}
            if taken.isdisjoint(results):
                break
        taken |= results
        names.append(name)
    return names


def _images_at(path: pathlib.Path) -> list[pathlib.Path]:
    if path.is_dir():
        return sorted(file for file in path.iterdir() if file.suffix.lower() in _SUFFIXES)
    return [path]
