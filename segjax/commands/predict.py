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
    """Predicts what a model has learnt to see in images of any size.

    For each image it writes NAME_overlay.png, the image with the prediction drawn on it, and:
    after the semantic task NAME.png, whose values are class ids; after the instance task NAME.json,
    a list of objects with class, score, box (x, y, width, height) and mask (COCO's compressed
    runs); after the panoptic task NAME.png, whose colours are the ids of segments (red + 256 green
    + 65536 blue; 0 is void), and NAME.json, a list of what they are. NAME is the image's own name
    without its ending, with a number where several images would get the same.

    For all images together it writes after the semantic task classes.json, which names the class
    ids; after the others results.json, as pycocotools (objects) or panopticapi (segments) load it.
    Class ids are those of the data set that the model was trained on.

    Attributes:
      inputs: images, folders of images, and patterns such as 'photos/**/*.jpg'.
      output: folder for the results; made if missing.
      probabilities: also write NAME.npz with `probs`, float16 [height, width, classes]; for the
        semantic task.
      score_threshold: the least score of an object that is written.
      annotations: a JSON in COCO's format that lists the images, from which results.json has their
        ids; images are turned by their EXIF orientation only where that gives the listed size.
        Without it ids are the numbers that the files are named by, or 1, 2, 3 ..., and all images
        are turned. Not for the semantic task.
    """

    inputs: Annotated[
        tyro.conf.Positional[tuple[pathlib.Path, ...]], tyro.conf.arg(metavar="IMAGES")
    ]
    output: pathlib.Path
    probabilities: bool = False
    score_threshold: float = 0.5
    annotations: pathlib.Path | None = None


def run(options: Options) -> int:
    """Writes the predictions; 1 where an image could not be read, after all the others."""
    # Not sooner: `--help` need not wait for OpenCV.
    from segjax.data.images import warn_of_shades

    files = find_images(options.inputs)
    if options.output.resolve() in {file.parent.resolve() for file in files}:
        raise ValueError(f"--output {options.output} holds images to predict; give another folder")
    predictor = load(options, score_threshold=options.score_threshold)
    task = predictor.config.task
    if options.probabilities and task != "semantic":
        raise ValueError(f"--probabilities: {options.run} has learnt no classes of pixels")
    if options.score_threshold != Options.score_threshold and task != "instance":
        raise ValueError(f"score_threshold: no effect for the {task} task of {options.run}")
    if options.annotations is not None and task == "semantic":
        raise ValueError(f"annotations: no effect for the {task} task of {options.run}")
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
            tell(f"{file}: as {name}")
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
    """Of each file that can be read."""
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
    """The image files that are meant, each once, in the order of the inputs and then of the names.

    Args:
      inputs: files, folders (of which those with an image's suffix count), and patterns.

    Returns:
      The files.

    Raises:
      DataError: where an input stands for no file at all, or there is no input.
    """
    files: dict[pathlib.Path, None] = {}
    for path in inputs:
        if path.exists():
            matches = [path]
        else:
            matches = sorted(map(pathlib.Path, glob.glob(str(path), recursive=True)))
        found = [file for match in matches for file in _images_at(match)]
        if not found:
            raise DataError(f"{path}: there is no image")
        files |= dict.fromkeys(found)
    if not files:
        raise DataError("there is nothing to predict: name images, folders or patterns")
    return list(files)


def output_names(files: Iterable[pathlib.Path]) -> list[str]:
    """A name for the results of each file: its stem, numbered where a result has it already.

    Args:
      files: in the order in which they get their names.

    Returns:
      As many names.

    Example:
      >>> output_names([pathlib.Path(p) for p in ("a/x.jpg", "b/x.jpg", "b/x_overlay.jpg")])
      ['x', 'x_2', 'x_overlay_2']
    """
    names: list[str] = []
    taken = {"results"}  # of all images
    for file in files:
        numbered = (f"{file.stem}_{number}" for number in itertools.count(2))
        for name in itertools.chain([file.stem], numbered):
            # Some file systems do not tell small letters from capitals.
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
