"""Class names with synonyms, and how the scores of a class's names become one."""

import dataclasses
import os
import pathlib
from collections.abc import Iterable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.numerics import accumulation_dtype
from segjax.typing import Array

# What data sets of objects leave unlabelled, for a background that has names: SCLIP's.
BACKGROUND_NOUNS = (
    "sky, wall, tree, wood, grass, road, sea, river, mountain, sands, desk, bed, building, cloud, "
    "lamp, door, window, wardrobe, ceiling, shelf, curtain, stair, floor, hill, rail, fence"
)

Merge = Literal["max_probability", "max_logit", "mean"]


@dataclasses.dataclass(frozen=True)
class ClassNames:
    """Classes, each with one name or several.

    Attributes:
      names: Names of each class; the first is the one that is shown.

    Example:
      >>> from segjax import text
      >>> classes = text.ClassNames.parse(["person, rider", "road"])
      >>> classes.flat, classes.groups
      (('person', 'rider', 'road'), (0, 0, 1))
    """

    names: tuple[tuple[str, ...], ...]

    @classmethod
    def parse(cls, texts: Iterable[str]) -> "ClassNames":
        """Reads one text a class, in which commas separate synonyms.

        Args:
          texts: Names, such as "person, person in shirt".

        Returns:
          The classes.

        Raises:
          ValueError: for no class at all, or a class without a name.
        """
        texts = list(texts)
        if not texts:
            raise ValueError("texts: expected at least one name, got none")
        names = [tuple(n.strip() for n in text.split(",") if n.strip()) for text in texts]
        for number, synonyms in enumerate(names):
            if not synonyms:
                raise ValueError(
                    f"texts: expected a name for class {number}, got {texts[number]!r}"
                )
        return cls(tuple(names))

    @classmethod
    def from_file(cls, path: str | os.PathLike) -> "ClassNames":
        """Reads a file with one line a class, in which commas separate synonyms.

        Args:
          path: Text file; empty lines are left out.

        Returns:
          The classes.

        Raises:
          OSError: if the file cannot be read.
          ValueError: if it is no text, or has no name.
        """
        try:
            lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{path}: expected a text in UTF-8, got {error}") from None
        lines = [line for line in lines if line.strip()]
        if not lines:
            raise ValueError(f"{path}: expected a name in each line, got an empty file")
        try:
            return cls.parse(lines)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    @property
    def flat(self) -> tuple[str, ...]:
        """All names, class after class."""
        return tuple(name for synonyms in self.names for name in synonyms)

    @property
    def groups(self) -> tuple[int, ...]:
        """The class of each name of `flat`."""
        return tuple(k for k, synonyms in enumerate(self.names) for _ in synonyms)

    def __len__(self) -> int:
        return len(self.names)


def merge_names(
    logits: Float[Array, "*b n"], groups: tuple[int, ...], *, method: Merge = "max_probability"
) -> Float[jax.Array, "*b c"]:
    """Scores of classes from those of their names.

    "max_probability" takes `max_{n of c} softmax(logits)_n`, as SCLIP does; "max_logit" takes
    `max_{n of c} logits_n`, as FC-CLIP does; "mean" takes `mean_{n of c} logits_n`, as CAT-Seg
    does.

    Args:
      logits: `[*b, n]`, of all names.
      groups: Class of each name, as in `ClassNames.groups`.
      method: How the scores of a class's names become one.

    Returns:
      `[*b, c]`, at least float32: probabilities for "max_probability", otherwise logits.

    Raises:
      ValueError: if there are not as many groups as names, a class has no name, or for an unknown
        method.

    Example:
      >>> from segjax import text
      >>> import jax.numpy as jnp
      >>> text.merge_names(jnp.array([1.0, 3.0, 2.0]), (0, 0, 1), method="mean")
      Array([2., 2.], dtype=float32)

    References:
      Wang et al., "SCLIP: rethinking self-attention for dense vision-language inference", 2024;
      Yu et al., "Convolutions die hard: open-vocabulary segmentation with single frozen
      convolutional CLIP", 2023; Cho et al., "CAT-Seg: cost aggregation for open-vocabulary semantic
      segmentation", 2024.
    """
    if logits.ndim < 1 or logits.shape[-1] != len(groups):
        raise ValueError(f"groups: expected {logits.shape[-1:]}, one a name, got {len(groups)}")
    count = max(groups) + 1
    if set(groups) != set(range(count)):
        raise ValueError(f"groups: expected a name for each of {count} classes, got {groups}")
    logits = jnp.asarray(logits).astype(accumulation_dtype(logits))
    scores = jax.nn.softmax(logits) if method == "max_probability" else logits
    ids, by_name = jnp.array(groups), jnp.moveaxis(scores, -1, 0)
    match method:
        case "max_probability" | "max_logit":
            merged = jax.ops.segment_max(by_name, ids, count)
        case "mean":
            sizes = jnp.bincount(ids, length=count).astype(scores.dtype)
            sizes = sizes.reshape(-1, *[1] * (by_name.ndim - 1))
            merged = jax.ops.segment_sum(by_name, ids, count) / sizes
        case _:
            raise ValueError(f"method: expected max_probability, max_logit or mean, got {method!r}")
    return jnp.moveaxis(merged, 0, -1)
