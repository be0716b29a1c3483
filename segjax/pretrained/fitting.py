"""A state dict fitted to a model: what is missing, unexpected and mis-shaped, and what adapts."""

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

_LISTED = 20  # of each kind of fault
_LEVELS = 8  # of names before a key that are looked at
# What torch's wrappers put into the keys of the module within.
_WRAPPERS = re.compile(
    r"(?:(?<=\.)|^)(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)


@dataclasses.dataclass(frozen=True)
class Fitted:
    """Arrays out of a state dict, as far as it has them.

    Attributes:
      arrays: by path of ours, in our layout and dtype.
      adapted: the original's keys of those that were made to fit.
      fresh: paths of ours that the state dict has nothing for, by the original's key.
    """

    arrays: dict[str, np.ndarray]
    adapted: tuple[str, ...]
    fresh: dict[str, str]


def unwrap(
    tables: Sequence[KeyTable], state_dict: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], str]:
    """The arrays without what training put before all their keys.

    Args:
      tables: of the model.
      state_dict: arrays by a file's keys.

    Returns:
      Arrays by key, without the counter of an average, the names of torch's wrappers, and as many
      of the names that all keys share as makes most of the rest known to a table; and those names,
      such as "module.model.".

    Example:
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

    # The first of those as good.
    prefix = max(prefixes, key=lambda p: max(_count_known(table, cut(p)) for table in tables))
    return cut(prefix), prefix


def nearest_table(tables: Sequence[KeyTable], state_dict: Mapping[str, np.ndarray]) -> KeyTable:
    """Of a model's tables the one that knows most of a file's keys; the first of those as good."""
    return max(tables, key=lambda table: _count_known(table, state_dict))


def _count_known(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> int:
    return sum(map(table.names, canonical(table, state_dict)))


def canonical(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays that count, under the names of the table.

    Args:
      table: of the family.
      state_dict: arrays by a file's keys.

    Returns:
      Arrays by the original's keys, without unused ones.
    """
    named = {table.canonical(key): array for key, array in state_dict.items()}
    return {key: array for key, array in named.items() if not table.is_unused(key)}


def count_classes(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> int | None:
    """The number of classes of a canonical state dict; None where it has no head.

    Of an array without numbers a file may claim any length.
    """
    if isinstance(table, OwnNames):
        return table.count_classes(state_dict)
    heads = (array for key, array in state_dict.items() if matches(table.heads[:1], key))
    lengths = (array.shape[0] for array in heads if array.ndim and array.size)
    return next((length - table.extra_classes for length in lengths), None)


def count_channels(table: KeyTable, state_dict: Mapping[str, np.ndarray]) -> int | None:
    """How many channels the images have of a canonical state dict; None where it has no stem."""
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
    """Takes for each of a model's arrays what a canonical state dict has.

    The first kernel adapts to other channels, and what the table names so to other sizes. Left
    fresh are optional parts that are missing, and all the rest where there is a backbone alone.

    Args:
      table: of the family.
      state_dict: as `canonical` gives it.
      template: shapes and dtypes of the model's variables.
      new_head: whether the head is left fresh too, for it is of other classes.

    Returns:
      The arrays, and which were adapted or are left fresh.

    Raises:
      WeightsError: it lists all that is missing, unexpected or mis-shaped.

    Example:
      >>> table = KeyTable((("conv", "conv1"),))
      >>> template = {"params": {"conv": {"bias": np.zeros(2, np.float32)}}}
      >>> fit(table, {"conv1.bias": np.array([1, 2], np.float16)}, template).arrays
      {'conv/bias': array([1., 2.], dtype=float32)}
    """
    due: set[str] = set()
    arrays: dict[str, np.ndarray] = {}
    adapted: dict[str, None] = {}  # a set in order
    fresh: dict[str, str] = {}
    missing: dict[str, Shape] = {}
    misfits: dict[str, str] = {}
    # What the file is a backbone by: all its keys begin so.
    backbone = next(
        (
            start
            for start in in_turn(table.backbone)
            if all(k.startswith(start) for k in state_dict)
        ),
        None,
    )

    def fitting(key, shape):
        """The original's array, made to fit; None where there is none, and what becomes of it."""
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
            misfits[key] = f"{key} is {array.dtype}; due are floating numbers"
            return None
        if new_head and matches(table.heads, key):
            return None
        if array.shape == shape:
            return array
        if backbone is not None and matches(table.optional, key):
            return None
        adapted_array = _adapted(table, key, array, shape)
        if adapted_array is None:
            misfits[key] = f"{key} is {state_dict[key].shape}; due is {shape}"
        else:
            adapted[key] = None
        return adapted_array

    def take(path, leaf):
        place = table.original(path)
        shapes = place.shapes(leaf.shape)
        due.update(shapes)
        found = {key: fitting(key, shape) for key, shape in shapes.items()}
        absent = [key for key, array in found.items() if array is None]
        if absent:
            fresh[path] = absent[0]
        else:
            arrays[path] = np.asarray(place.read(found), leaf.dtype)

    map_paths(take, template)
    unexpected = [key for key in state_dict if key not in due and not matches(table.optional, key)]
    faults = [
        *_section("missing", missing, lambda key: f"{key} {missing[key]}{_near(key, unexpected)}"),
        *_section("unexpected", unexpected, lambda key: f"{key} {state_dict[key].shape}"),
        *_section("mis-shaped", misfits, misfits.__getitem__),
    ]
    if faults:
        raise WeightsError("\n".join(faults))
    return Fitted(arrays, tuple(adapted), fresh)


def _adapted(table: KeyTable, key: str, array: np.ndarray, shape: Shape) -> np.ndarray | None:
    """An array of another shape made to fit; None where nothing says how."""
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
    """The faults of one kind, the first of them one a line."""
    if not keys:
        return []
    lines = [f"    {describe(key)}" for key in itertools.islice(keys, _LISTED)]
    more = [f"    and {len(keys) - _LISTED} more"] if len(keys) > _LISTED else []
    return [f"  {title}:", *lines, *more]


def _near(key: str, unexpected: list[str]) -> str:
    near = difflib.get_close_matches(key, unexpected, n=1, cutoff=0.8)
    return f": is it {near[0]}?" if near else ""
