"""How the original's keys are ours: a table of modules, and the layout of their arrays."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

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

Names = str | tuple[str, ...]
Row = tuple[Names, Names] | tuple[Names, Names, Layout]
# From an array in the original's layout, and another shape, to an array of that shape.
Resize = Callable[[np.ndarray, Shape], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Original:
    """Where the original has an array of ours.

    Attributes:
      keys: of the arrays of theirs that it is in, joined along their first axis: the outputs.
      layout: of what they are together.
      part: which of the equal `parts` of that is ours.
      parts: their number.
    """

    keys: tuple[str, ...]
    layout: Layout
    part: int = 0
    parts: int = 1

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """The shapes of their arrays, by key, for one of ours of that shape."""
        whole = self.layout.theirs(np.broadcast_to(np.float32(0), shape)).shape
        if len(self.keys) == self.parts == 1:
            return {self.keys[0]: whole}
        outputs = whole[0] * self.parts // len(self.keys)
        return {key: (outputs, *whole[1:]) for key in self.keys}

    def read(self, state_dict: Mapping[str, np.ndarray]) -> np.ndarray:
        """The array of ours out of theirs."""
        arrays = [state_dict[key] for key in self.keys]
        array = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        if self.parts > 1:
            array = np.split(array, self.parts)[self.part]
        return self.layout.ours(array)

    def write(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """An array of ours as theirs, by key: of each, our part."""
        array = np.asarray(self.layout.theirs(array), order="C")
        if len(self.keys) == 1:
            return {self.keys[0]: array}
        return dict(zip(self.keys, np.split(array, len(self.keys)), strict=True))


@dataclasses.dataclass(frozen=True)
class KeyTable:
    """The names of a family of models, ours and the original's.

    A row joins a module of ours to one of the original's, as in ("stage{s}/block{b}/conv",
    "layer{s}.{b}.conv1"), or an array of ours to one of theirs, whose layout is then the same.
    `{s}` stands for a number, on both sides the same. Of a module's arrays the names follow by
    kind, and kernels turn round. Where neither holds, a third entry of the row gives the layout.

    Several names on one side are of arrays that the other side has as one, joined along the
    outputs: ("qkv", ("q_proj", "k_proj", "v_proj")) or (("query", "key", "value"), "in_proj_"). To
    a name of theirs that ends with "_" the array's is joined without a dot.

    All other attributes speak of the original's keys.

    Attributes:
      rows: pairs of ours and theirs, with a layout where it is unusual.
      renames: pairs (pattern, replacement), as of `re.sub`: what else a file may call its keys.
      unused: patterns of keys that the original holds and no output depends on.
      optional: patterns of the keys of parts that a model or a file may be without.
      idle: pairs (pattern, number): arrays that no output depends on, such as norms of what is not
        asked for. A file may be without them; they then consist of the number.
      counters: whether each batch norm has a `num_batches_tracked` beside it.
      stem: the key of the first kernel, `[out, channels of the image, …]`.
      heads: patterns of the keys whose arrays depend on the number of classes, which is the length
        of the first axis of an array that the first of them matches, less `extra_classes`.
      extra_classes: what the head tells apart beside the classes: 1 where there is "no object".
      backbone: with what the keys begin that a published backbone holds alone; several where parts
        of several sizes are published, the smaller first.
      resized: pairs (pattern, function): how arrays follow the size of the image, such as position
        embeddings.
    """

    rows: tuple[Row, ...]
    renames: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    idle: tuple[tuple[str, float], ...] = ()
    counters: bool = True
    stem: str = ""
    heads: tuple[str, ...] = ()
    extra_classes: int = 0
    backbone: Names = ()
    resized: tuple[tuple[str, Resize], ...] = ()

    def original(self, path: str) -> Original:
        """Where the original has the array at a path such as "conv/kernel"."""
        module, _, leaf = path.rpartition("/")
        for row in _compiled(self.rows):
            if match := row.path.fullmatch(path):
                layout, ending = row.layout or SAME, ""
            elif (match := row.path.fullmatch(module)) and leaf in _LEAVES:
                layout, ending = (row.layout or KERNEL) if leaf == "kernel" else SAME, _LEAVES[leaf]
            else:
                continue
            keys = tuple(_joined(key.format(**match.groupdict()), ending) for key in row.keys)
            return Original(keys, layout, row.part, row.parts)
        raise ValueError(f"no row of the table names {path}")

    def names(self, key: str) -> bool:
        """Whether a row speaks of the original's key."""
        return any(pattern.fullmatch(key) for row in _compiled(self.rows) for pattern in row.known)

    def canonical(self, key: str) -> str:
        """A file's key under the name of the table."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def is_unused(self, key: str) -> bool:
        """Whether the original holds this beside what our model has."""
        return (self.counters and key.endswith(".num_batches_tracked")) or matches(self.unused, key)


def in_turn(names: Names) -> tuple[str, ...]:
    """One name, or several."""
    return (names,) if isinstance(names, str) else names


def matches(patterns: tuple[str, ...], key: str) -> bool:
    """Whether one of the patterns is the whole key's."""
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def _joined(key: str, ending: str) -> str:
    """An array's key out of that of its module."""
    return f"{key}.{ending}" if ending and not key.endswith("_") else key + ending


class _Compiled(NamedTuple):
    """A row, for one of the names on our side: as regular expressions."""

    path: re.Pattern
    keys: tuple[str, ...]
    layout: Layout | None
    part: int
    parts: int
    known: tuple[re.Pattern, ...]


@functools.cache
def _compiled(rows: tuple[Row, ...]) -> tuple[_Compiled, ...]:
    def pattern(name, number, ending=""):
        return re.compile(re.sub(r"\\\{(\w+)\\\}", number, re.escape(name)) + ending)

    leaves = rf"(\.?({'|'.join(sorted(set(_LEAVES.values())))}))?"
    return tuple(
        _Compiled(
            pattern(path, r"(?P<\1>\\d+)"),
            in_turn(theirs),
            layout[0] if layout else None,
            part,
            len(in_turn(ours)),
            tuple(pattern(key, r"\\d+", leaves) for key in in_turn(theirs)),
        )
        for ours, theirs, *layout in rows
        for part, path in enumerate(in_turn(ours))
    )


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
    return map_paths(lambda path, _: table.original(path).read(state_dict), template)


def to_state_dict(table: KeyTable, variables: dict) -> dict[str, np.ndarray]:
    """A model's variables as the original's state dict.

    Args:
      table: of the family.
      variables: of the model.

    Returns:
      Arrays by the original's keys.
    """
    pieces: dict[str, dict[int, np.ndarray]] = {}

    def collect(path, array):
        place = table.original(path)
        for key, piece in place.write(np.asarray(array)).items():
            pieces.setdefault(key, {})[place.part] = piece
            if table.counters and path.endswith("/mean"):
                counter = key.replace("running_mean", "num_batches_tracked")
                pieces[counter] = {0: np.zeros((), np.int64)}

    map_paths(collect, variables)
    return {
        key: np.concatenate([parts[i] for i in sorted(parts)]) if len(parts) > 1 else parts[0]
        for key, parts in pieces.items()
    }


def map_paths(function: Callable[[str, Any], Any], variables: Mapping) -> dict:
    """`function(path, array)` of every array; a path is that within its collection."""

    def named(path, array):
        return function("/".join(entry.key for entry in path[1:]), array)

    return jax.tree_util.tree_map_with_path(named, variables)


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """The first kernel for images of other channels, `w'_i = w_{i mod c} · c / c'`; for one, `Σ w`.

    The factor keeps the size of the results. It is the rule of timm and of
    segmentation-models-pytorch.

    Args:
      kernel: `[out, c, …]`, the original's.
      channels: `c'`.

    Returns:
      `[out, c', …]`.

    Example:
      >>> adapt_channels(np.array([[1.0, 2.0, 3.0]]), 1)
      array([[6.]])
    """
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    old = kernel.shape[1]
    return kernel[:, np.arange(channels) % old] * (old / channels)
