"""Key tables: the names and array layouts of published weights, beside those of our modules."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

Shape = tuple[int, ...]

# Names of arrays within a module: ours and the original's.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class Layout:
    """Conversion between our layout of an array and the original's.

    Attributes:
      theirs: function from our layout to the original's.
      ours: function from the original's layout to ours.
    """

    theirs: Callable[[np.ndarray], np.ndarray]
    ours: Callable[[np.ndarray], np.ndarray]


SAME = Layout(lambda x: x, lambda x: x)
# Our kernels end in (in, out), theirs begin with (out, in).
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
# Function of an array in the original's layout and a shape that returns an array of that shape.
Resize = Callable[[np.ndarray, Shape], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Original:
    """Place of one of our arrays in the original's state dict.

    Attributes:
      keys: keys of the original's arrays that hold it, joined along the first axis (the outputs).
      layout: layout of the joined array.
      part: index of our part, if the joined array is split into equal `parts`.
      parts: number of parts.
    """

    keys: tuple[str, ...]
    layout: Layout
    part: int = 0
    parts: int = 1

    def shapes(self, shape: Shape) -> dict[str, Shape]:
        """The shapes of the original's arrays by key, for an array of ours of that shape."""
        whole = self.layout.theirs(np.broadcast_to(np.float32(0), shape)).shape
        if len(self.keys) == self.parts == 1:
            return {self.keys[0]: whole}
        outputs = whole[0] * self.parts // len(self.keys)
        return {key: (outputs, *whole[1:]) for key in self.keys}

    def read(self, state_dict: Mapping[str, np.ndarray]) -> np.ndarray:
        """Our array, from the original's arrays."""
        arrays = [state_dict[key] for key in self.keys]
        array = np.concatenate(arrays) if len(arrays) > 1 else arrays[0]
        if self.parts > 1:
            array = np.split(array, self.parts)[self.part]
        return self.layout.ours(array)

    def write(self, array: np.ndarray) -> dict[str, np.ndarray]:
        """The original's arrays by key, or our part of them, from our array."""
        array = np.asarray(self.layout.theirs(array), order="C")
        if len(self.keys) == 1:
            return {self.keys[0]: array}
        return dict(zip(self.keys, np.split(array, len(self.keys)), strict=True))


@dataclasses.dataclass(frozen=True)
class KeyTable:
    """Key table: our names and the original's for the weights of a family of models.

    A row pairs a module of ours with one of the original's, as in ("stage{s}/block{b}/conv",
    "layer{s}.{b}.conv1"), or an array of ours with one of theirs of the same layout. `{s}` stands
    for a number, the same on both sides. The names of a module's arrays follow from their kind, and
    kernels are transposed. For other layouts the row has a `Layout` as its third entry.

    Several names on one side stand for arrays that are one array on the other side, joined along
    the outputs: ("qkv", ("q_proj", "k_proj", "v_proj")) or (("query", "key", "value"), "in_proj_").
    If the original's name ends with "_", the array's name is added without a dot.

    All other attributes are about the original's keys.

    Attributes:
      rows: pairs of ours and theirs, with a layout where it is unusual.
      renames: pairs (pattern, replacement), as in `re.sub`, for other names that files may have.
      unused: patterns of the original's keys that no output depends on, which are ignored.
      optional: patterns of the keys of parts that a model or a file may lack.
      idle: pairs (pattern, number) for arrays of ours that no output depends on. If a file lacks
        them, they are filled with the number.
      counters: whether each batch norm has a `num_batches_tracked`.
      stem: the key of the first kernel, `[out, channels of the image, …]`.
      heads: patterns of the keys whose arrays depend on the number of classes. This is the length
        of the first axis of an array that the first pattern matches, less `extra_classes`.
      extra_classes: number of outputs of the head beside the classes: 1 for "no object".
      backbone: prefix of the keys in a file with the backbone alone; several, the smaller part
        first, if several parts are published.
      resized: pairs (pattern, function) for arrays that depend on the size of the image, such as
        position embeddings.
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
        """The place in the original of the array at a path such as "conv/kernel"."""
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
        raise ValueError(f"path: expected one that a row of the table names, got {path}")

    def names(self, key: str) -> bool:
        """Whether a row names the original's key."""
        return any(pattern.fullmatch(key) for row in _compiled(self.rows) for pattern in row.known)

    def canonical(self, key: str) -> str:
        """A file's key as named in the table."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def is_unused(self, key: str) -> bool:
        """Whether our model has no use for this key."""
        return (self.counters and key.endswith(".num_batches_tracked")) or matches(self.unused, key)


def in_turn(names: Names) -> tuple[str, ...]:
    """One name, or several."""
    return (names,) if isinstance(names, str) else names


def matches(patterns: tuple[str, ...], key: str) -> bool:
    """Whether one of the patterns matches the whole key."""
    return any(re.fullmatch(pattern, key) for pattern in patterns)


def _joined(key: str, ending: str) -> str:
    """The key of an array from that of its module."""
    return f"{key}.{ending}" if ending and not key.endswith("_") else key + ending


class _Compiled(NamedTuple):
    """A row for one of the names on our side, as regular expressions."""

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
    """Converts the original's state dict to a model's variables.

    Args:
      table: key table of the family.
      state_dict: arrays by the original's keys.
      template: the model's variables, arrays or their shapes.

    Returns:
      Variables as in `template`, NumPy arrays.

    Raises:
      KeyError: if a key is missing.
    """
    return map_paths(lambda path, _: table.original(path).read(state_dict), template)


def to_state_dict(table: KeyTable, variables: dict) -> dict[str, np.ndarray]:
    """Converts a model's variables to the original's state dict.

    Args:
      table: key table of the family.
      variables: variables of the model.

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
    """Maps `function(path, array)` over variables; paths are those within a collection."""

    def named(path, array):
        return function("/".join(entry.key for entry in path[1:]), array)

    return jax.tree_util.tree_map_with_path(named, variables)


def adapt_channels(kernel: np.ndarray, channels: int) -> np.ndarray:
    """Adapts the first kernel to other channels: `w'_i = w_{i mod c} · c / c'`, or `Σ w` for one.

    The factor keeps the scale of the outputs. This is the rule of timm and of
    segmentation-models-pytorch.

    Args:
      kernel: `[out, c, …]`, in the original's layout.
      channels: `c'`, the new number of channels.

    Returns:
      `[out, c', …]`.

    Example:
      >>> import numpy as np
      >>> from segjax.pretrained.keys import adapt_channels
      >>> adapt_channels(np.array([[1.0, 2.0, 3.0]]), 1)
      array([[6.]])
    """
    if channels == 1:
        return kernel.sum(1, keepdims=True)
    old = kernel.shape[1]
    return kernel[:, np.arange(channels) % old] * (old / channels)
