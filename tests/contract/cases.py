"""What the contract's tests call each array function with. A new function needs a line in `CASES`.

A case names its function and describes each array argument for a picture of `h`×`w` pixels: how
to draw it, and the values at which functions tend to break.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from segjax.numerics import accumulation_dtype
from segjax.typing import Instances, Points, Record


@dataclasses.dataclass(frozen=True)
class Argument:
    """An array argument.

    Attributes:
      draw: from a NumPy generator, an ordinary value.
      extremes: numbers it may consist of throughout.
      junk: numbers that may stand where a mask is False.
    """

    draw: Callable[[np.random.Generator], np.ndarray]
    extremes: tuple = ()
    junk: tuple = ()


def real(*shape: int) -> Argument:
    """Any number: logits, features, images."""
    return Argument(lambda rng: rng.normal(size=shape), (0, 1, 1e4, -1e4), (np.nan, np.inf))


def fraction(*shape: int) -> Argument:
    """0..1: probabilities, soft masks."""
    return Argument(lambda rng: rng.uniform(0.05, 0.95, shape), (0, 1), (np.nan, np.inf))


def mask(*shape: int) -> Argument:
    return Argument(lambda rng: rng.random(shape) < 0.6, (False, True))


def classes(*shape: int, num_classes: int) -> Argument:
    return Argument(
        lambda rng: rng.integers(num_classes, size=shape, dtype=np.int32),
        (0, num_classes - 1),
        (255, -1),
    )


def counts(*shape: int) -> Argument:
    return Argument(lambda rng: rng.integers(50, size=shape, dtype=np.int32), (0, 1, 10_000))


def corners(*shape: int) -> Argument:
    """Boxes, xyxy."""

    def draw(rng):
        start, sides = rng.uniform(-2, 6, (2, *shape, 2))
        return np.concatenate([start, start + np.abs(sides)], axis=-1)

    return Argument(draw, (0, 1, 1e4, -1e4))


@dataclasses.dataclass(frozen=True)
class Case:
    """One way to call a function.

    Attributes:
      function: its name without `segjax.`.
      arguments: of (h, w), the array arguments by name.
      options: the other arguments.
      masked: the arguments whose values under `where=False` may be anything.
      tag: what tells the case from others of the same function.
      rounding: the relative error that bfloat16 arguments may cause in a float32 result.
      build: from the arrays by name, the keyword arguments; for functions that take records.
    """

    function: str
    arguments: Callable[[int, int], dict[str, Argument]]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    masked: tuple[str, ...] = ()
    tag: str = ""
    rounding: float = 1e-5
    build: Callable[[dict[str, jax.Array]], dict[str, Any]] = lambda arrays: arrays

    def __str__(self) -> str:
        return f"{self.function}[{self.tag}]" if self.tag else self.function


def _overlap_cases(name: str) -> list[Case]:
    """A soft overlap of masks: one mask in all, and one for each channel."""
    masked = ("probs", "targets")
    return [
        Case(
            f"losses.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "targets": fraction(h, w, 2),
                "where": mask(h, w, 2),
            },
            masked=masked,
        ),
        Case(
            f"losses.{name}",
            lambda h, w: {
                "probs": fraction(h, w, 2),
                "targets": mask(h, w, 2),
                "where": mask(h, w, 1),
            },
            options={"axis": (-3, -2), "smooth": 1.0, "squared": True},
            masked=("probs",),
            tag="per channel, smooth, squared",
        ),
    ]


def _predict(images: jax.Array) -> jax.Array:
    return jax.nn.softmax(images.astype(accumulation_dtype(images)))


_KEY = jax.random.key(0)


def _example(h: int, w: int, **instances: Argument) -> dict[str, Argument]:
    """The arrays of an example; extremes of its image and its two instances will do."""
    rest = {
        "labels": classes(h, w, num_classes=3),
        "where": mask(h, w),
        "boxes": corners(2),
        "points": real(2, 2),
    }
    ordinary = {name: dataclasses.replace(a, extremes=()) for name, a in rest.items()}
    return {"image": real(h, w, 2)} | ordinary | instances


def _with_record(arrays: dict[str, jax.Array]) -> dict[str, Any]:
    """The arrays of an example as a record, and what other arguments there are."""
    zeros, ones = np.zeros(2, np.int32), np.ones(2, bool)
    record = Record(
        image=arrays["image"],
        labels=arrays["labels"],
        where=arrays["where"],
        tags=np.ones(3, bool),
        points=Points(arrays["points"], zeros, ones),
        instances=Instances(arrays["boxes"], zeros, ones, masks=arrays.get("masks")),
    )
    return {"record": record} | {k: v for k, v in arrays.items() if k == "matrix"}


CASES = [
    # numerics
    Case("numerics.safe_divide", lambda h, w: {"numerator": real(h, w), "denominator": real(h, w)}),
    Case("numerics.broadcast_where", lambda h, w: {"where": mask(h, 1)}, {"shape": (4, 3)}),
    Case(
        "numerics.masked_sum",
        lambda h, w: {"values": real(h, w), "where": mask(h, w)},
        masked=("values",),
    ),
    # ops
    *(
        Case(
            "ops.resize",
            lambda h, w: {"image": real(h, w, 2)},
            {"shape": (7, 3), "method": method, **options},
            tag=" ".join([method, *options]),
        )
        for method, options in [
            ("nearest", {}),
            ("bilinear", {}),
            ("bilinear", {"align_corners": True}),
            ("bicubic", {}),
            ("bicubic", {"antialias": True}),
        ]
    ),
    *(
        Case(
            "ops.sample",
            lambda h, w: {"features": real(h, w, 2), "points": real(3, 2)},
            {"method": method, "padding": padding},
            tag=f"{method} {padding}",
        )
        for method, padding in [
            ("nearest", "zeros"),
            ("bilinear", "zeros"),
            ("bicubic", "border"),
        ]
    ),
    Case("ops.box_area", lambda h, w: {"boxes": corners(3)}),
    Case("ops.clip_boxes", lambda h, w: {"boxes": corners(3)}, {"shape": (4, 5)}),
    Case("ops.masks_to_boxes", lambda h, w: {"masks": mask(3, h, w)}),
    Case(
        "ops.label_edges",
        lambda h, w: {"labels": classes(h, w, num_classes=3), "where": mask(h, w)},
        masked=("labels",),
    ),
    # data
    Case(
        "data.scene",
        lambda h, w: {"seed": classes(num_classes=9)},
        {"shape": (16, 16), "max_instances": 2},
        build=lambda arrays: {"key": jax.random.key(arrays["seed"])},
    ),
    Case("data.as_float", lambda h, w: {"image": real(h, w, 3)}),
    Case(
        "data.color_jitter",
        lambda h, w: {"image": fraction(h, w, 3)},
        {"key": _KEY, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "hue": 0.2},
    ),
    Case("data.gaussian_blur", lambda h, w: {"image": real(h, w, 3), "sigma": fraction()}),
    Case("data.random_blur", lambda h, w: {"image": real(h, w, 3)}, {"key": _KEY, "sigma": 1.0}),
    Case(
        "data.cutout",
        lambda h, w: _example(h, w, masks=mask(2, h, w)),
        {"key": _KEY, "fraction": 0.3},
        build=_with_record,
    ),
    Case(
        "data.affine",
        lambda h, w: {"matrix": real(2, 3)} | _example(h, w, masks=mask(2, h, w)),
        {"shape": (3, 6)},
        tag="masks",
        build=_with_record,
    ),
    Case(
        "data.affine",
        lambda h, w: {"matrix": real(2, 3)} | _example(h, w, boxes=corners(2)),
        {"shape": (3, 6)},
        tag="boxes",
        build=_with_record,
    ),
    Case(
        "data.random_geometry",
        lambda h, w: _example(h, w, masks=mask(2, h, w)),
        {"key": _KEY, "shape": (3, 6), "rotation": 30.0},
        build=_with_record,
    ),
    # losses
    *(
        Case(
            "losses.softmax_cross_entropy",
            lambda h, w, labels=labels: {
                "logits": real(h, w, 3),
                "labels": labels(h, w),
                "class_weights": fraction(3),
                "where": mask(h, w),
            },
            options={"label_smoothing": 0.1},
            masked=("logits", "labels"),
            tag=tag,
        )
        for tag, labels in [
            ("integer", lambda h, w: classes(h, w, num_classes=3)),
            ("soft", lambda h, w: fraction(h, w, 3)),
        ]
    ),
    Case(
        "losses.pixel_weights",
        lambda h, w: {
            "labels": classes(h, w, num_classes=3),
            "class_weights": fraction(3),
            "where": mask(h, w),
        },
        masked=("labels",),
    ),
    *_overlap_cases("soft_jaccard"),
    *_overlap_cases("soft_dice"),
    *_overlap_cases("jaccard_loss"),
    *_overlap_cases("dice_loss"),
    # metrics
    Case(
        "metrics.confusion_matrix",
        lambda h, w: {
            "predictions": classes(h, w, num_classes=3),
            "labels": classes(h, w, num_classes=3),
            "where": mask(h, w),
        },
        {"num_classes": 3},
        masked=("predictions", "labels"),
    ),
    *(
        Case(f"metrics.{name}", lambda h, w: {"matrix": counts(3, 3)})
        for name in (
            "class_iou",
            "class_dice",
            "mean_iou",
            "dice_score",
            "pixel_accuracy",
            "frequency_weighted_iou",
        )
    ),
    # inference
    Case("inference.semantic_probs", lambda h, w: {"logits": real(h, w, 3)}, {"shape": (2 * 4, 7)}),
    Case("inference.semantic_labels", lambda h, w: {"probs": fraction(h, w, 3)}),
    Case(
        "inference.sliding_window",
        lambda h, w: {"images": real(1, h, w, 3)},
        {"predict": _predict, "window": (2, 3)},
    ),
    Case(
        "inference.average_over_views",
        lambda h, w: {"images": real(1, h, w, 3)},
        {"predict": _predict, "scales": (1.0, 1.5)},
        rounding=1e-2,  # `predict` sees the resized pictures in their own dtype
    ),
]
