"""Weights under segjax's own names, "COLLECTION/MODULE/ARRAY", as in `flax.traverse_util`."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping

import jax
import numpy as np

from segjax.pretrained.keys import SAME, KeyTable, Original, Shape, adapt_channels

NAMING = "segjax"


@dataclasses.dataclass(frozen=True)
class _Axis:
    """An axis of an array with `constant + slope · n` entries."""

    axis: int
    constant: int
    slope: int

    def count(self, array: np.ndarray) -> int | None:
        """Solves for n; None if there is no such n."""
        if array.ndim <= self.axis or not array.size:
            return None
        number, rest = divmod(array.shape[self.axis] - self.constant, self.slope)
        return number if number > 0 and not rest else None


@dataclasses.dataclass(frozen=True)
class OwnNames(KeyTable):
    """A table with the names of a model's variables themselves, whose arrays are unchanged.

    Attributes:
      keys: keys by path within a collection.
      class_axes: axes whose size depends on the number of classes, by key.
      channel_axes: axes whose size depends on the number of image channels, by key.
    """

    keys: Mapping[str, str] = dataclasses.field(default_factory=dict)
    class_axes: Mapping[str, _Axis] = dataclasses.field(default_factory=dict)
    channel_axes: Mapping[str, _Axis] = dataclasses.field(default_factory=dict)

    def original(self, path: str) -> Original:
        return Original((self.keys[path],), SAME)

    def names(self, key: str) -> bool:
        return key in self.keys.values()

    def count_classes(self, state_dict: Mapping[str, np.ndarray]) -> int | None:
        return _count(self.class_axes, state_dict)

    def count_channels(self, state_dict: Mapping[str, np.ndarray]) -> int | None:
        return _count(self.channel_axes, state_dict)


def is_own(state_dict: Mapping[str, np.ndarray]) -> bool:
    """Whether the arrays have segjax's own names; those of torch have no slash."""
    return any("/" in key for key in state_dict)


def own_state_dict(variables: dict) -> dict[str, np.ndarray]:
    """Converts a model's variables to arrays by their own names.

    Args:
      variables: variables of the model.

    Returns:
      Arrays by "COLLECTION/MODULE/ARRAY".
    """
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    return {_key(path): np.ascontiguousarray(array) for path, array in leaves}


def own_names(shapes: Callable[[int, int], dict]) -> OwnNames:
    """The table of a model's own names.

    Args:
      shapes: function `(classes, channels)` that returns the model's variables, or their shapes.

    Returns:
      The table. The heads are the arrays whose shape depends on the number of classes, and the
      first kernel is the array whose shape depends on the number of channels.
    """
    classes, channels = 5, 3
    template = shapes(classes, channels)
    leaves = jax.tree_util.tree_leaves_with_path(template)
    class_axes = _axes(template, shapes(classes + 1, channels), classes)
    channel_axes = _axes(template, shapes(classes, channels + 1), channels)
    return OwnNames(
        rows=(),
        counters=False,
        heads=tuple(map(re.escape, class_axes)),
        resized=tuple(
            (re.escape(key), functools.partial(_adapt_stem, axis))
            for key, axis in channel_axes.items()
        ),
        keys={_key(path[1:]): _key(path) for path, _ in leaves},
        class_axes=class_axes,
        channel_axes=channel_axes,
    )


def _key(path: tuple) -> str:
    return "/".join(entry.key for entry in path)


def _axes(template: dict, grown: dict, number: int) -> dict[str, _Axis]:
    """The axes of arrays that grow with a number, by key."""
    axes = {}
    more = jax.tree.leaves(grown)
    for (path, leaf), other in zip(
        jax.tree_util.tree_leaves_with_path(template), more, strict=True
    ):
        for axis, (before, after) in enumerate(zip(leaf.shape, other.shape, strict=True)):
            if slope := after - before:
                axes[_key(path)] = _Axis(axis, before - slope * number, slope)
    return axes


def _count(axes: Mapping[str, _Axis], state_dict: Mapping[str, np.ndarray]) -> int | None:
    counts = (axis.count(state_dict[key]) for key, axis in axes.items() if key in state_dict)
    return next((count for count in counts if count is not None), None)


def _adapt_stem(axis: _Axis, kernel: np.ndarray, shape: Shape) -> np.ndarray:
    """Adapts the first kernel to other channels, for each pixel of its window by itself."""
    channels = axis.count(kernel)
    if channels is None or kernel.ndim != len(shape) or axis.constant:
        raise ValueError
    split = np.moveaxis(kernel, axis.axis, 0).reshape(
        axis.slope, channels, *np.delete(kernel.shape, axis.axis)
    )
    split = adapt_channels(split, shape[axis.axis] // axis.slope)
    adapted = np.moveaxis(split.reshape(-1, *split.shape[2:]), 0, axis.axis)
    if adapted.shape != shape:
        raise ValueError
    return adapted
