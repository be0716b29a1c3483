"""How the original's keys are ours: a table of modules, and the layout of their arrays."""

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

# Our leaves and the original's, where a row of a table names a module.
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}


@dataclasses.dataclass(frozen=True)
class KeyTable:
    """The names of a family of models, ours and the original's.

    A row joins a module of ours to one of the original's, as in ("stage{s}/block{b}/conv",
    "layer{s}.{b}.conv1"), or an array of ours to one of theirs, whose layout is then the same.
    `{s}` stands for a number, on both sides the same. Of a module's arrays the names follow by
    kind, and kernels turn round: ours end in (in, out), theirs begin with (out, in).

    Attributes:
      rows: pairs of ours and theirs.
      renames: pairs (pattern, replacement), as of `re.sub`: what else a file may call its keys.
      unused: patterns of keys that the original holds and no output depends on.
      counters: whether each batch norm has a `num_batches_tracked` beside it.
    """

    rows: tuple[tuple[str, str], ...]
    renames: tuple[tuple[str, str], ...] = ()
    unused: tuple[str, ...] = ()
    counters: bool = True

    def key(self, path: str) -> str:
        """The original's key for the array at a path such as "head/conv/kernel"."""
        module, _, leaf = path.rpartition("/")
        for pattern, theirs in _compiled(self.rows):
            if match := pattern.fullmatch(path):
                return theirs.format(**match.groupdict())
            if (match := pattern.fullmatch(module)) and leaf in _LEAVES:
                return f"{theirs.format(**match.groupdict())}.{_LEAVES[leaf]}"
        raise ValueError(f"no row of the table names {path}")

    def canonical(self, key: str) -> str:
        """A file's key under the name of the table."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key

    def is_unused(self, key: str) -> bool:
        counter = self.counters and key.endswith(".num_batches_tracked")
        return counter or any(re.fullmatch(pattern, key) for pattern in self.unused)


@functools.cache
def _compiled(rows: tuple[tuple[str, str], ...]) -> tuple[tuple[re.Pattern, str], ...]:
    """The rows with our side as a regular expression."""
    pattern = lambda ours: re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>\\d+)", ours))
    return tuple((pattern(ours), theirs) for ours, theirs in rows)


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
    return _map(template, lambda path, _: _turned(path, state_dict[table.key(path)], inverse=True))


def to_state_dict(table: KeyTable, variables: dict) -> dict[str, np.ndarray]:
    """A model's variables as the original's state dict, in the order of ours.

    Args:
      table: of the family.
      variables: of the model.

    Returns:
      Arrays by the original's keys.
    """
    arrays: dict[str, np.ndarray] = {}

    def collect(path, array):
        key = table.key(path)
        arrays[key] = np.ascontiguousarray(_turned(path, np.asarray(array)))
        if table.counters and path.endswith("/mean"):
            counter = key.replace("running_mean", "num_batches_tracked")
            arrays[counter] = np.zeros((), np.int64)

    _map(variables, collect)
    return arrays


def _turned(path: str, array: np.ndarray, *, inverse: bool = False) -> np.ndarray:
    """A kernel from (…, in, out) to (out, in, …), or back; anything else as it is."""
    if not path.endswith("/kernel"):
        return array
    ours, theirs = (-1, -2), (0, 1)
    return np.moveaxis(array, theirs, ours) if inverse else np.moveaxis(array, ours, theirs)


def _map(variables: dict, function: Callable[[str, Any], Any]) -> dict:
    """`function(path, array)` of every array; a path is that within its collection."""

    def named(path, array):
        return function("/".join(entry.key for entry in path[1:]), array)

    return jax.tree_util.tree_map_with_path(named, variables)
