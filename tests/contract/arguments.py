"""What a case of the contract is made of: its arguments, how to draw them, where they may break."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class Argument:
    """An array argument.

    Attributes:
      draw: from a NumPy generator, an ordinary value.
      extremes: numbers it may consist of throughout.
      junk: numbers that may stand where a mask is False.
      void: labels that no class has.
    """

    draw: Callable[[np.random.Generator], np.ndarray]
    extremes: tuple = ()
    junk: tuple = ()
    void: tuple = ()


def real(*shape: int) -> Argument:
    """Any number: logits, features, images."""
    return Argument(lambda rng: rng.normal(size=shape), (0, 1, 1e4, -1e4), (np.nan, np.inf))


def fraction(*shape: int) -> Argument:
    """0..1: probabilities, soft masks."""
    return Argument(lambda rng: rng.uniform(0.05, 0.95, shape), (0, 1), (np.nan, np.inf))


def log_prob(*shape: int) -> Argument:
    """At most 0."""
    return Argument(
        lambda rng: np.log(rng.uniform(0.05, 0.95, shape)), (0, -1e-30, -1e4), (np.nan, np.inf)
    )


def mask(*shape: int) -> Argument:
    return Argument(lambda rng: rng.random(shape) < 0.6, (False, True))


def classes(*shape: int, num_classes: int) -> Argument:
    return Argument(
        lambda rng: rng.integers(num_classes, size=shape, dtype=np.int32),
        (0, num_classes - 1),
        (255, -1),
        (255, -1, -num_classes, num_classes),
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
      labels: the arguments of classes, of which those that there are not are void.
      tag: what tells the case from others of the same function.
      rounding: the relative error that bfloat16 arguments may cause in a float32 result.
      forward: whether it has forward-mode derivatives of its own (`jax.jvp`).
      side: of the images for half precision, in pixels; fewer where the cost is not linear, or
        another case of the function takes the full size.
      build: from the arrays by name, the keyword arguments; for functions that take records.
    """

    function: str
    arguments: Callable[[int, int], dict[str, Argument]]
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    masked: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tag: str = ""
    rounding: float = 1e-5
    forward: bool = True
    side: int = 1024
    build: Callable[[dict[str, jax.Array]], dict[str, Any]] = lambda arrays: arrays

    def __str__(self) -> str:
        return f"{self.function}[{self.tag}]" if self.tag else self.function
