"""Fits a state dict to a model: lists what is missing or unexpected, and adapts shapes."""

import dataclasses
import difflib
import itertools
import re
from collections.abc import Callable, Collection, Mapping, Sequence

import jax.numpy as jnp
import numpy as np

from segjax.pretrained.errors import WeightsError
from segjax.pretrained.keys import (
    KeyTable,
    Shape,
    adapt_channels,
    in_turn,
    map_paths,
    matches,
)
from segjax.pretrained.own import OwnNames
from segjax.pretrained.torch_files import COUNTER

_LISTED = 20  # faults of each kind that are listed
_LEVELS = 8  # of a common prefix that may be left out
# Names that torch's wrappers add to the keys of a module.
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Arrays from a state dict, as far as it has them.

    Attributes:
      arrays: arrays by our path, in our layout and dtype.
      adapted: the original's keys of arrays that were adapted in shape.
      new: the original's key of each array that is to be newly initialised, by our path.
    """

    arrays: dict[str, np.ndarray]
    adapted: tuple[str, ...]
    new: dict[str, str]


def unwrap(
    tables: Sequence[KeyTable], state_dict: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], str]:
    """Removes wrappers and common prefixes, which training adds, from the keys of a state dict.

    Args:
      tables: key tables of the model.
      state_dict: arrays by the file's keys.

    Returns:
      Arrays by key, without the counter of an average, the names of torch's wrappers, and the part
      of the prefix common to all keys whose removal makes most of them known to a table; and that
      prefix, such as "module.model.".

    Example:
      >>> import numpy as np
      >>> from segjax.pretrained.fitting import unwrap
      >>> from segjax.pretrained.keys import KeyTable
      >>> arrays = {"model.conv1.bias": np.zeros(1), "model.conv1.weight": np.zeros((1, 1))}
      >>> list(unwrap([KeyTable((("conv", "conv1"),))], arrays)[0])
      ['conv1.bias', 'conv1.weight']
    """
    arrays = {
        _WRAPPERS.sub("", key): array
        for key, array in state_dict.items()
        if key.rpartition(".")[2] != COUNTER
    }
    levels = zip(*(key.split(".", _LEVELS)[:-1] for key in arrays), strict=False)
    shared = [names[0] for names in itertools.takewhile(lambda names: len({*names}) == 1, levels)]
    prefixes = ["", *itertools.accumulate(f"{name}." for name in shared)]

    def cut(prefix):
        return {key.removeprefix(prefix): array for key, array in arrays.items()}

    # The first if several are equally good.
    prefix = max(prefixes, key=lambda p: max(_count_known(table, cut(p)) for table in tables))
    return cut(prefix), prefix


def nearest_table(tables: Sequence[KeyTable], state_dict: Mapping[str, np.ndarray]) -> KeyTable:
    """The key table of a model that knows most of a file's keys; the first of several."""
    return max(tables, key=lambda table: _count_known(table, state_dict))


def _count_known(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> int:
    return sum(map(table.names, canonical(table, state_dict)))


def canonical(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Renames a file's keys to those of the table, and drops unused arrays.

    Args:
      table: key table of the family.
      state_dict: arrays by the file's keys.

    Returns:
      Arrays by the original's keys, without unused ones.
    """
    named = {table.canonical(key): array for key, array in state_dict.items()}
    return {key: array for key, array in named.items() if not table.is_unused(key)}


def count_classes(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> int | None:
    """The number of classes of a canonical state dict; None if it has no head.

    Empty arrays do not count, as a file may claim any length for these.
    """
    if isinstance(table, OwnNames):
        return table.count_classes(state_dict)
    heads = (array for key, array in state_dict.items() if matches(table.heads[:1], key))
    lengths = (array.shape[0] for array in heads if array.ndim and array.size)
    return next((length - table.extra_classes for length in lengths), None)


def count_channels(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> int | None:
    """The number of image channels of a canonical state dict; None if it has no stem."""
    if isinstance(table, OwnNames):
        return table.count_channels(state_dict)
    stem = state_dict.get(table.stem)
    return None if stem is None or stem.ndim < 2 or not stem.size else stem.shape[1]


def fit(
    table: KeyTable,
    state_dict: Mapping[str, np.ndarray],
    template: dict,
    *,
    new_head: bool = False,
) -> Fitted:
    """Takes the arrays of a model from a canonical state dict.

    The first kernel adapts to another number of channels, and what the table says so to other
    sizes. Missing optional parts are newly initialised, and all but the backbone where the state
    dict holds a backbone alone.

    Args:
      table: key table of the family.
      state_dict: arrays as from `canonical`.
      template: shapes and dtypes of the model's variables.
      new_head: whether the head is newly initialised too, as for other classes.

    Returns:
      The arrays, and which of them were adapted or are to be newly initialised.

    Raises:
      WeightsError: if anything is missing, unexpected or mis-shaped; it lists all of these.

    Example:
      >>> import numpy as np
      >>> from segjax.pretrained.fitting import fit
      >>> from segjax.pretrained.keys import KeyTable
      >>> table = KeyTable((("conv", "conv1"),))
      >>> template = {"params": {"conv": {"bias": np.zeros(2, np.float32)}}}
      >>> fit(table, {"conv1.bias": np.array([1, 2], np.float16)}, template).arrays
      {'conv/bias': array([1., 2.], dtype=float32)}
    """
    expected: set[str] = set()
    arrays: dict[str, np.ndarray] = {}
    adapted: dict[str, None] = {}  # a set in order
    new: dict[str, str] = {}
    missing: dict[str, Shape] = {}
    misfits: dict[str, str] = {}
    # The prefix of all keys if the file holds a backbone alone.
    backbone = next(
        (
            start
            for start in in_turn(table.backbone)
            if all(k.startswith(start) for k in state_dict)
        ),
        None,
    )

    def fitting(key, shape):
        """The original's array, adapted in shape; None, with the reason noted, if there is none."""
        if key not in state_dict:
            for pattern, number in table.idle:
                if matches((pattern,), key):
                    return np.full(shape, number)
            outside = backbone is not None and not key.startswith(backbone)
            if not (outside or matches(table.optional, key)):
                missing[key] = shape
            return None
        array = state_dict[key]
        if not jnp.issubdtype(array.dtype, jnp.floating):
            misfits[key] = f"{key}: expected floating numbers, got {array.dtype}"
            return None
        if new_head and matches(table.heads, key):
            return None
        if array.shape == shape:
            return array
        if backbone is not None and matches(table.optional, key):
            return None
        adapted_array = _adapted(table, key, array, shape)
        if adapted_array is None:
            misfits[key] = f"{key}: expected shape {shape}, got {state_dict[key].shape}"
        else:
            adapted[key] = None
        return adapted_array

    def take(path, leaf):
        place = table.original(path)
        shapes = place.shapes(leaf.shape)
        expected.update(shapes)
        found = {key: fitting(key, shape) for key, shape in shapes.items()}
        absent = [key for key, array in found.items() if array is None]
        if absent:
            new[path] = absent[0]
        else:
            arrays[path] = np.asarray(place.read(found), leaf.dtype)

    map_paths(take, template)
    unexpected = [
        key for key in state_dict if key not in expected and not matches(table.optional, key)
    ]
    faults = [
        *_section("missing", missing, lambda key: f"{key} {missing[key]}{_near(key, unexpected)}"),
        *_section("unexpected", unexpected, lambda key: f"{key} {state_dict[key].shape}"),
        *_section("mis-shaped", misfits, misfits.__getitem__),
    ]
    if faults:
        raise WeightsError("\n".join(faults))
    return Fitted(arrays, tuple(adapted), new)


def _adapted(table: KeyTable, key: str, array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """An array adapted to another shape; None if the table does not say how."""
    if key == table.stem and array.ndim > 1 and shape == (len(array), shape[1], *array.shape[2:]):
        return adapt_channels(array, shape[1])
    for pattern, resize in table.resized:
        if re.fullmatch(pattern, key):
            try:
                return resize(array, shape)
            except ValueError:
                return None
    return None


def _section(title: str, keys: Collection[str], describe: Callable[[str], str]) -> list[str]:
    """The faults of one kind, one on each line, shortened if many."""
    if not keys:
        return []
    lines = [f"    {describe(key)}" for key in itertools.islice(keys, _LISTED)]
    more = [f"    and {len(keys) - _LISTED} more"] if len(keys) > _LISTED else []
    return [f"  {title}:", *lines, *more]


def _near(key: str, unexpected: list[str]) -> str:
    near = difflib.get_close_matches(key, unexpected, n=1, cutoff=0.8)
    return f": is it {near[0]}?" if near else ""
