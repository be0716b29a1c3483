"""How the original's keys are ours: a table of modules, and the layout of their arrays."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

Shape = tuple[int, ...]

# Our leaves and the original's, where a row of a table names a module.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """How an array of ours turns into the original's, and back.

    Attributes:
      theirs: from ours.
      ours: from theirs.
    """

    theirs: Callable[[np.ndarray], np.ndarray]
    ours: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
# Ours end in (in, out), theirs begin with (out, in).
KERNEL = Layout(
    lambda x: np.moveaxis(x, (-1, -2), (0, 1)), lambda x: np.moveaxis(x, (0, 1), (-1, -2))
)
# A matrix of ours is a 1x1 convolution of theirs.
POINTWISE = Layout(lambda x: x.T[:, :, None, None], lambda x: x[:, :, 0, 0].T)


def _to_transposed(x: np.ndarray) -> np.ndarray:
    x = x.reshape(x.shape[0], 2, 2, x.shape[1] // 4)
    return np.moveaxis(x, -1, 1)


def _from_transposed(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1).reshape(x.shape[0], -1)


# The matrix in `UpConv2x` is a transposed convolution of theirs, (in, out, 2, 2).
UP_CONV = Layout(_to_transposed, _from_transposed)

Row = tuple[str, str] | tuple[str, str, Layout]
# From an array in the original's layout, and another shape, to an array of that shape.
Resize = Callable[[np.ndarray, Shape], np.ndarray]


@dataclasses.dataclass(frozen=True)
class KeyTable:
    """The names of a family of models, ours and the original's.

    A row joins a module of ours to one of the original's, as in ("stage{s}/block{b}/conv",
    "layer{s}.{b}.conv1"), or an array of ours to one of theirs, whose layout is then the same.
    `{s}` stands for a number, on both sides the same. Of a module's arrays the names follow by
    kind, and kernels turn round. Where neither holds, a third entry of the row gives the layout.

    All other attributes speak of the original's keys.

    Attributes:
      rows: pairs of ours and theirs, with a layout where it is unusual.
      renames: pairs (pattern, replacement), as of `re.sub`: what else a file may call its keys.
      unused: patterns of keys that the original holds and no output depends on.
      optional: patterns of the keys of parts that a model or a file may be without.
      counters: whether each batch norm has a `num_batches_tracked` beside it.
      stem: the key of the first kernel, `[out, channels of the image, …]`.
      heads: patterns of the keys whose arrays depend on the number of classes, which is the length
        of the first axis of an array that the first of them matches.
      backbone: with what the keys begin that a published backbone holds alone.
      resized: pairs (pattern, function): how arrays follow the size of the image, such as position
        embeddings.
    """

    rows: tuple[Row, ...]
    renames: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    counters: bool = True
    stem: str = ""
    heads: tuple[str, ...] = ()
    backbone: str = ""
    resized: tuple[tuple[str, Resize], ...] = ()

    def original(self, path: str) -> tuple[str, Layout]:
        """The original's key, and its layout, for the array at a path such as "conv/kernel"."""
        module, _, leaf = path.rpartition("/")
        for pattern, theirs, layout in _compiled(self.rows):
            if match := pattern.fullmatch(path):
                return theirs.format(**match.groupdict()), layout or SAME
            if (match := pattern.fullmatch(module)) and leaf in _LEAVES:
                key = f"{theirs.format(**match.groupdict())}.{_LEAVES[leaf]}"
                return key, (layout or KERNEL) if leaf == "kernel" else SAME
        raise ValueError(f"no row of the table names {path}")

    def key(self, path: str) -> str:
        """The original's key for the array at a path such as "head/conv/kernel"."""
        return self.original(path)[0]

    def canonical(self, key: str) -> str:
        """A file's key under the name of the table."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def is_unused(self, key: str) -> bool:
        """Whether the original holds this beside what our model has."""
        return (self.counters and key.endswith(".num_batches_tracked")) or matches(self.unused, key)


def matches(patterns: tuple[str, ...], key: str) -> bool:
    """Whether one of the patterns is the whole key's."""
    return any(re.fullmatch(pattern, key) for pattern in patterns)


@functools.cache
def _compiled(rows: tuple[Row, ...]) -> tuple[tuple[re.Pattern, str, Layout | None], ...]:
    """The rows with our side as a regular expression."""

    def compiled(ours, theirs, layout=None):
        return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", ours)), theirs, layout

    return tuple(compiled(*row) for row in rows)


def to_variables(table: KeyTable, state_dict: Mapping[str, np.ndarray], template: dict) -> dict:
    """A model's variables out of an original's state dict.

    Args:
      table: of the family.
      state_dict: arrays by the original's keys.
      template: the model's variables, arrays or their shapes.

    Returns:
      Variables as in `template`, NumPy arrays.

    Raises:
      KeyError: for a key that is missing.
    """

    def read(path, _):
        key, layout = table.original(path)
        return layout.ours(state_dict[key])

    return map_paths(read, template)


def to_state_dict(table: KeyTable, variables: dict) -> dict[str, np.ndarray]:
    """A model's variables as the original's state dict.

    Args:
      table: of the family.
      variables: of the model.

    Returns:
      Arrays by the original's keys.
    """
    arrays: dict[str, np.ndarray] = {}

    def collect(path, array):
        key, layout = table.original(path)
        arrays[key] = np.asarray(layout.theirs(np.asarray(array)), order="C")
        if table.counters and path.endswith("/mean"):
            counter = key.replace("running_mean", "num_batches_tracked")
            arrays[counter] = np.zeros((), np.int64)

    map_paths(collect, variables)
    return arrays


def map_paths(function: Callable[[str, Any], Any], variables: dict) -> dict:
    """`function(path, array)` of every array; a path is that within its collection."""

    def named(path, array):
        return function("/".join(entry.key for entry in path[1:]), array)

    return jax.tree_util.tree_map_with_path(named, variables)
