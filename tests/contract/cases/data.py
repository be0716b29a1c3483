"""Cases of `segjax.data`."""

import dataclasses
from typing import Any

import jax
import numpy as np
from arguments import Argument, Case, classes, corners, fraction, mask, real

from segjax.data import SceneStyle
from segjax.typing import Instances, Points, Record

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
    Case(
        "data.scene",
        lambda h, w: {"seed": classes(num_classes=9)},
        {"shape": (16, 16), "style": SceneStyle(max_instances=2)},
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
]
