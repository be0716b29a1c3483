"""A trained model, ready for pictures of any size."""

import contextlib
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import cv2
import jax
import numpy as np
from flax import linen as nn

from segjax.inference.predictions import (
    InstancePrediction,
    PanopticPrediction,
    Prediction,
    SemanticPrediction,
    crop,
)
from segjax.typing import Array, Instances, Panoptic

if TYPE_CHECKING:  # packages above `inference`, which are imported where they are used
    from segjax.data import Classes
    from segjax.models.training_free import DenseMethod
    from segjax.tasks import Task
    from segjax.text import TextEmbeddings
    from segjax.text.names import Merge
    from segjax.training import TrainConfig

Picture = str | os.PathLike | Array
TaskName = Literal["semantic", "instance", "panoptic"]
_MULTIPLE = 32  # the sides of a canvas are multiples of so many pixels


class Predictor:
    """A trained model, ready for pictures of any size.

    Pictures are padded, by repeating their border, to a canvas whose sides are multiples of 32
    pixels; the model is compiled once for each size of canvas. Several pictures share a few
    canvases if predictions do not depend on the canvas (`models.is_canvas_invariant`).

    `predictor(path)` or `predictor(array)` is a `SemanticPrediction` (`.labels`, `.probs`), an
    `InstancePrediction` (`.objects`) or a `PanopticPrediction` (`.segments`); each has `.overlay()`
    and `.save(path)`. A list, or a batch `[b, h, w, c]`, gives a list.

    Attributes:
      task: task that makes predictions from the model's outputs.
      model: the Flax module.
      variables: variables of the module.
      classes: names and colours of the predicted classes.
      config: configuration of the training run, or what is known of it for a published model.
      origin: description of where the model is from, for messages.
      score_threshold: least score of the objects that are kept, in 0..1.

    Example:
      >>> from segjax import inference
      >>> inference.Predictor.from_run("runs/none")
      Traceback (most recent call last):
      FileNotFoundError: runs/none: no run there (config.json is missing)
    """

    def __init__(
        self,
        task: "Task",
        model: nn.Module,
        variables: dict,
        classes: "Classes",
        *,
        config: "TrainConfig",
        channels: int = 3,
        origin: str = "",
        score_threshold: float = 0.5,
    ):
        self.task, self.model, self.classes = task, model, classes
        self.variables = jax.device_put(variables)
        self.config, self.origin, self.score_threshold = config, origin, score_threshold
        self._channels = channels

        @jax.jit
        def predict(variables, image, size):
            prediction = task.predict(model, variables, image[None], size[None])
            return jax.tree.map(lambda x: x[0], prediction)

        self._predict = predict

    @classmethod
    def from_run(
        cls,
        path: str | os.PathLike,
        *,
        checkpoint: Literal["best", "last"] | int = "best",
        score_threshold: float = 0.5,
        **views: Any,
    ) -> "Predictor":
        """Loads the model of a training run.

        Args:
          path: folder of the run, or the file that `segjax convert` made of it.
          checkpoint: the best by the task's score, such as the mean IoU (if there is none, the
            last), the last, or that of a step, by its number; a file has only one.
          score_threshold: least score of the objects that are kept, in 0..1.
          **views: sliding windows and test-time augmentation of semantic models: `window`,
            `overlap`, `scales` and `flip`, as in `SemanticTask`.

        Returns:
          The predictor.

        Raises:
          OSError: if there is no such run, it has no checkpoint, or it is damaged.
          ValueError: where the file is not of a run, its configuration is of another model, or for
            options that the task has no use for.
        """
        from segjax.training.build import make_model, make_task
        from segjax.training.learnt import load_learnt

        info, variables, origin = load_learnt(path, checkpoint)
        config, classes = info.config, info.classes
        return cls(
            _with_views(make_task(config, classes), path, views),
            make_model(config, len(classes)),
            variables,
            classes,
            config=config,
            channels=info.channels,
            origin=origin,
            score_threshold=score_threshold,
        )

    @classmethod
    def from_weights(
        cls,
        source: str | os.PathLike,
        model: str,
        *,
        task: TaskName | None = None,
        classes: "Classes | Sequence[str] | None" = None,
        model_options: dict[str, Any] | None = None,
        score_threshold: float = 0.5,
        **views: Any,
    ) -> "Predictor":
        """Loads a published model with its weights.

        Args:
          source: file, folder with a file, or repository of the Hugging Face hub, as in
            `pretrained.load`.
          model: name of the model, a key of `segjax.models.MODELS`.
          task: task of the model; None for its usual one.
          classes: names of the classes, or a `Classes` with colours and things; None takes the
            names from `id2label` in a `config.json` beside the weights, or else "class 0" ….
          model_options: attributes of the model's module, by name.
          score_threshold: least score of the objects that are kept, in 0..1.
          **views: sliding windows and test-time augmentation of semantic models: `window`,
            `overlap`, `scales` and `flip`, as in `SemanticTask`.

        Returns:
          The predictor.

        Raises:
          ValueError: if the weights are of another model, an option has no effect, or the number of
            names is not that of the classes.
          OSError: if the weights cannot be read.
        """
        from segjax import models, pretrained
        from segjax.pretrained.weights import count_variables
        from segjax.training.build import make_task
        from segjax.training.config import CONFIGS

        options = model_options or {}
        variables = pretrained.load(source, model, **options)
        count, channels = count_variables(variables, model, **options)
        module = models.create(model, count, **options)
        # Published Mask R-CNNs count the background as 0.
        first = 1 if isinstance(module, models.MaskRCNN) else 0
        named = _name_classes(source, classes, range(first, first + count))
        config = CONFIGS[task or _usual_task(model, module)](model=model)
        return cls(
            _with_views(make_task(config, named), source, views),
            module,
            variables,
            named,
            config=config,
            channels=channels,
            origin=f"{model} of {source}",
            score_threshold=score_threshold,
        )

    @classmethod
    def from_text(
        cls,
        source: str | os.PathLike,
        model: str,
        embeddings: "TextEmbeddings",
        *,
        method: "DenseMethod" = "sclip",
        merge: "Merge" = "max_probability",
        background: int | None = None,
        threshold: float = 0.0,
        model_options: dict[str, Any] | None = None,
        **views: Any,
    ) -> "Predictor":
        """A published CLIP that labels pixels by texts, without training.

        Args:
          source: A file, a folder with one, or a repository of the Hugging Face hub, as in
            `pretrained.load`.
          model: Name of the model, such as "clip_vit_base_patch16".
          embeddings: Embeddings of the names of the classes by the same model, as
            `text.embed_names` and `segjax embed` make them.
          method: How the last block is changed so that patches stay local, as in
            `models.dense_clip`.
          merge: How the scores of a class's names become one, as in `text.merge_names`.
          background: Class of the pixels of which no class is sure; None where all have another.
          threshold: Largest probability below which a pixel is of the background, in 0..1.
          model_options: Attributes of the model's module, by name.
          **views: How the model looks at a picture: `window`, `overlap`, `scales` and `flip`, as in
            `SemanticTask`; the papers' windows are (224, 224).

        Returns:
          The predictor.

        Raises:
          ValueError: for weights that are not the model's, a model that is no CLIP, or embeddings
            of another model.
          OSError: where the weights cannot be read.
        """
        from segjax import models, pretrained
        from segjax.data import Classes
        from segjax.data.palette import default_colors
        from segjax.registry import find_entry, make_model
        from segjax.tasks import TextTask
        from segjax.training.config import SemanticConfig

        options = model_options or {}
        entry, module = find_entry(model), make_model(model, 0, **options)
        if not isinstance(module, models.Clip):
            raise ValueError(f"model: expected a CLIP, got {model}")
        if embeddings.model not in ("", model):
            raise ValueError(f"embeddings: expected those of {model}, got {embeddings.model}'s")
        names = tuple(synonyms[0] for synonyms in embeddings.classes.names)
        task: Any = TextTask(
            len(names),
            mean=entry.mean,
            std=entry.std,
            vectors=embeddings.vectors,
            groups=embeddings.classes.groups,
            method=method,
            merge=merge,
            background=background,
            threshold=threshold,
            **views,
        )
        return cls(
            task,
            module,
            pretrained.load(source, model, **options),
            Classes(names, default_colors(len(names))),
            config=SemanticConfig(model=model),
            origin=f"{model} of {source}",
        )

    def __call__(self, images: Any, *, canvas: tuple[int, int] | None = None) -> Any:
        """Predicts one picture, or several.

        Args:
          images: path of an image file, an array `[h, w]` or `[h, w, c]`, uint8 or floating in
            0..1, a list of these, or a batch `[b, h, w, c]`.
          canvas: (height, width) in pixels that every picture is padded to, rounded up to
            multiples of 32; None takes its own size, or for several pictures one of those that
            `plan_canvases` chooses.

        Returns:
          The prediction, or a list of predictions for several pictures.

        Raises:
          DataError: if a file cannot be read; it names the file.
          ValueError: if an array is not a picture for this model, or is larger than `canvas`.
        """
        if not isinstance(images, list | tuple | str | os.PathLike) and np.ndim(images) == 4:
            images = list(np.asarray(images))
        if not isinstance(images, list | tuple):
            return self._one(images, canvas)
        canvases = self.plan_canvases(images) if canvas is None else [canvas] * len(images)
        return [self._one(*pair) for pair in zip(images, canvases, strict=True)]

    @property
    def canvas_invariant(self) -> bool:
        """Whether a picture's prediction is the same on a larger canvas."""
        return self.task.canvas_invariant(self.model)

    def plan_canvases(
        self, images: Sequence[Picture], *, most: int = 3
    ) -> list[tuple[int, int] | None]:
        """Chooses a few canvases for pictures of many sizes, so that few programs are compiled.

        Args:
          images: paths of image files, or arrays `[h, w]` or `[h, w, c]`.
          most: largest number of canvases; 0 gives every picture its own, as does a model whose
            predictions depend on the canvas.

        Returns:
          (height, width) in pixels for each picture, as in `data.plan_canvases`; None for files
          that cannot be read.
        """
        from segjax.data import plan_canvases
        from segjax.data.errors import DataError
        from segjax.data.images import image_header, read_bytes

        sizes: dict[int, tuple[int, ...]] = {}
        for i, image in enumerate(images):
            if isinstance(image, str | os.PathLike):
                with contextlib.suppress(DataError):
                    sizes[i] = image_header(read_bytes(os.fspath(image))).upright
            elif np.ndim(image) in (2, 3):
                sizes[i] = np.shape(image)[:2]
        if not sizes:
            return [None] * len(images)
        most = most if self.canvas_invariant else 0
        planned = plan_canvases(np.array(list(sizes.values())), most=most)
        found = dict(zip(sizes, map(tuple, planned.tolist()), strict=True))
        return [found.get(i) for i in range(len(images))]

    def _one(self, picture: Picture, canvas: tuple[int, int] | None) -> Prediction:
        image = self._read(picture)
        shape = image.shape[:2]
        canvas = shape if canvas is None else canvas
        if canvas[0] < shape[0] or canvas[1] < shape[1]:
            raise ValueError(f"canvas: expected at least the picture's {shape}, got {canvas}")
        rounded = (-(-side // _MULTIPLE) * _MULTIPLE for side in canvas)
        margins = [(0, new - old) for new, old in zip(rounded, shape, strict=True)]
        padded = np.pad(image, (*margins, (0, 0)), mode="edge")
        found = self._predict(self.variables, padded, np.array(shape, np.int32))
        match prediction := crop(jax.device_get(found), shape):
            case Instances():
                return InstancePrediction(image, prediction, self.classes, self.score_threshold)
            case Panoptic():
                return PanopticPrediction(image, prediction, self.classes)
        return SemanticPrediction(image, prediction, self.classes)

    def _read(self, picture: Picture) -> np.ndarray:
        """The picture as `[h, w, c]` with the model's channels."""
        from segjax.data import read_image

        if isinstance(picture, str | os.PathLike):
            image = read_image(os.fspath(picture), max_value=self.config.max_value)
            if self._channels == 1:
                image = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        else:
            image = np.asarray(picture)
        if image.ndim == 2:
            image = image[..., None]
        if image.ndim != 3 or 0 in image.shape:
            raise ValueError(f"image: expected [h, w] or [h, w, c], got shape {image.shape}")
        if image.dtype != np.uint8 and not np.issubdtype(image.dtype, np.floating):
            raise ValueError(f"image: expected uint8 or floating in 0..1, got {image.dtype}")
        if image.shape[-1] == 1:
            image = np.repeat(image, self._channels, axis=-1)
        if image.shape[-1] != self._channels:
            raise ValueError(
                f"image: expected {self._channels} channel(s), as {self.origin} takes, got "
                f"{image.shape[-1]}"
            )
        return image


def _with_views(task: "Task", source: Any, views: dict[str, Any]) -> "Task":
    """The task with sliding windows and test-time augmentation as in the options."""
    from segjax.tasks import SemanticTask

    if isinstance(task, SemanticTask):
        return dataclasses.replace(task, **views)
    unset = {"window": None, "overlap": 0.5, "scales": (1.0,), "flip": False}
    if given := [key for key, value in views.items() if value != unset[key]]:
        raise ValueError(
            f"{', '.join(given)}: no effect but for the semantic task, which {source} did not learn"
        )
    return task


def _usual_task(name: str, model: nn.Module) -> str:
    """The most that a model can be asked for: segments, or else objects, or classes of pixels."""
    from segjax.registry import default_objective

    no_masks = getattr(model, "mask_head", True) is None
    return "instance" if no_masks else default_objective(name).tasks[-1]


def _name_classes(source: Any, classes: Any, ids: range) -> "Classes":
    from segjax.data import Classes
    from segjax.data.palette import default_colors

    if classes is None:
        names = _published_names(source)
        classes = [names.get(number, f"class {number}") for number in ids]
    if len(classes) != len(ids):
        raise ValueError(f"classes: expected the {len(ids)} of {source}, got {len(classes)}")
    if isinstance(classes, Classes):
        return classes
    return Classes(tuple(classes), default_colors(len(ids)), ids=tuple(ids))


def _published_names(source: Any) -> dict[int, str]:
    """The class names in a `config.json` beside weights, by number."""
    from segjax.data.checked import read_json
    from segjax.pretrained import WeightsError
    from segjax.pretrained.hub import find_config

    path = find_config(source)
    if path is None:
        return {}
    try:
        names = read_json(path).get("id2label") or {}
        return {int(number): str(name) for number, name in names.items()}
    except (ValueError, AttributeError) as error:
        raise WeightsError(f"{path}: expected names by number in id2label ({error})") from error
