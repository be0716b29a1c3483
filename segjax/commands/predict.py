"""`segjax predict`."""

import dataclasses
import glob
import itertools
import pathlib
from collections.abc import Callable, Iterable
from typing import Annotated

import jax
import numpy as np
import tyro
from rich.console import Console
from rich.progress import track

from segjax import viz
from segjax.commands.trained import ModelOptions, TrainedModel, load
from segjax.data import DataError, read_image
from segjax.inference import semantic_labels

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}
_MULTIPLE = 32  # of pixels: pictures are padded to it, so that few shapes are compiled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(ModelOptions):
    """Predicts the class of every pixel of images of any size.

    For each image it writes NAME.png, whose values are class ids, and NAME_overlay.png, the image
    tinted in the classes' colours. NAME is the image's own name without its ending, with a number
    where several images would get the same.

    Attributes:
      inputs: images, folders of images, and patterns such as 'photos/**/*.jpg'.
      output: folder for the results; made if missing.
      probabilities: also write NAME.npz with `probs`, float16 [height, width, classes].
    """

    inputs: Annotated[
        tyro.conf.Positional[tuple[pathlib.Path, ...]], tyro.conf.arg(metavar="IMAGES")
    ]
    output: pathlib.Path
    probabilities: bool = False


def run(options: Options) -> int:
    """Writes the predictions; 1 where an image could not be read, after all the others."""
    files = find_images(options.inputs)
    if options.output.resolve() in {file.parent.resolve() for file in files}:
        raise ValueError(f"--output {options.output} holds images to predict; give another folder")
    trained = load(options)
    predict = _compile(trained)
    options.output.mkdir(parents=True, exist_ok=True)

    console = Console(stderr=True)
    named = list(zip(files, output_names(files), strict=True))
    unread = 0
    for file, name in track(named, "predicting", console=console, disable=not console.is_terminal):
        try:
            image = read_image(file)
        except DataError as error:
            unread += 1
            console.print(f"segjax: {error}", markup=False, highlight=False, soft_wrap=True)
            continue
        if name != file.stem:
            console.print(f"{file}: as {name}", markup=False, highlight=False, soft_wrap=True)
        probs, labels = predict(image)
        colors = trained.info.classes.colors
        kind = np.uint8 if len(colors) <= 256 else np.uint16
        viz.save_image(options.output / f"{name}.png", np.asarray(labels).astype(kind))
        overlay = viz.overlay(image, np.asarray(labels), colors)
        viz.save_image(options.output / f"{name}_overlay.png", overlay)
        if options.probabilities:
            path = options.output / f"{name}.npz"
            np.savez_compressed(path, probs=np.asarray(probs, np.float16))
    print(f"{len(files) - unread} of {len(files)} images predicted: {options.output}")
    return 1 if unread else 0


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
    taken: set[str] = set()
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


def _compile(trained: TrainedModel) -> Callable[[np.ndarray], tuple[jax.Array, jax.Array]]:
    """`image -> (probs, labels)`, compiled once for all pictures of about the same size."""

    @jax.jit
    def predict_canvas(variables, image):
        probs = trained.task.predict(trained.model, variables, image[None])[0]
        return probs, semantic_labels(probs)

    variables = jax.device_put(trained.variables)

    def predict(image):
        height, width = image.shape[:2]
        margins = ((0, -height % _MULTIPLE), (0, -width % _MULTIPLE), (0, 0))
        results = predict_canvas(variables, np.pad(image, margins, mode="edge"))
        return jax.tree.map(lambda x: x[:height, :width], results)

    return predict
