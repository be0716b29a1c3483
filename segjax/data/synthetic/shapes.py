"""The shapes of things, and which pixels a thing covers."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from segjax.typing import Array

SHAPES = ("disc", "box", "triangle", "star", "ring", "cross", "blob")


class Things(NamedTuple):
    """Where things are and what shape they have.

    Attributes:
      shapes: index into `SHAPES`.
      centers: (x, y) in continuous pixels.
      radii: half extents along a thing's own two axes, in pixels.
      angles: rotation of those axes, in radians.
      bends: where a blob bulges, in radians.
      present: False for padding.
    """

    shapes: Int[Array, "*n"]
    centers: Float[Array, "*n 2"]
    radii: Float[Array, "*n 2"]
    angles: Float[Array, "*n"]
    bends: Float[Array, "*n"]
    present: Bool[Array, "*n"]


class _Outline(NamedTuple):
    """A shape of radius 1 about the origin, mirror symmetric about each of its tips.

    With (u, v) the coordinates along and across the direction of the nearest tip, a point at angle
    theta and distance r is inside where

        edge · (u, v) < offset   and   hole <= r < (1 + bulge cos(3 theta + bend)) / (1 + bulge)
    """

    tips: np.ndarray
    edge: tuple[float, float] = (0.0, 0.0)
    offset: float = 1.0
    hole: float = 0.0
    bulge: float = 0.0


def _tips(count: int, turn: float = 0.0) -> np.ndarray:
    """`count` directions all around, the last one repeated to make five."""
    angles = turn + 2 * np.pi * np.minimum(np.arange(5), count - 1) / count
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def _star(count: int, notch: float, *, turn: float = 0.0) -> _Outline:
    """Straight edges from tips at radius 1 to notches at radius `notch`, halfway between them."""
    x, y = notch * np.cos(np.pi / count), notch * np.sin(np.pi / count)
    return _Outline(_tips(count, turn), edge=(y, 1 - x), offset=y)


def _polygon(count: int, *, turn: float = 0.0) -> _Outline:
    return _star(count, np.cos(np.pi / count), turn=turn)


_OUTLINES = {
    "disc": _Outline(_tips(1)),
    "box": _polygon(4, turn=np.pi / 4),
    "triangle": _polygon(3),
    "star": _star(5, notch=0.4),
    "ring": _Outline(_tips(1), hole=0.62),
    "cross": _Outline(_tips(4), edge=(0.0, 1.0), offset=0.2),
    "blob": _Outline(_tips(1), bulge=0.3),
}
_TABLE = jax.tree.map(lambda *rows: np.array(rows, np.float32), *(_OUTLINES[s] for s in SHAPES))


def to_local(
    thing: Things, x: Float[Array, "*p"], y: Float[Array, "*p"]
) -> tuple[Float[jax.Array, "*p"], Float[jax.Array, "*p"]]:
    """Picture coordinates in a thing's own frame, `R(-angle) ((x, y) - center) / radii`.

    Args:
      thing: one thing, or one for each point.
      x: column, in continuous pixels.
      y: row, in continuous pixels.

    Returns:
      The coordinates along its two axes; the thing spans -1..1.
    """
    x, y = x - thing.centers[..., 0], y - thing.centers[..., 1]
    cos, sin = jnp.cos(thing.angles), jnp.sin(thing.angles)
    return (cos * x + sin * y) / thing.radii[..., 0], (cos * y - sin * x) / thing.radii[..., 1]


def covers(thing: Things, x: Float[Array, "*p"], y: Float[Array, "*p"]) -> Bool[jax.Array, "*p"]:
    """Which points lie inside one thing.

    Args:
      thing: one thing.
      x: column, in continuous pixels.
      y: row, in continuous pixels.

    Returns:
      True inside.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax.data.synthetic.shapes import Things
      >>> from segjax.data.synthetic.shapes import covers
      >>> ring = Things(4, jnp.zeros(2), jnp.full(2, 10.0), 0.0, 0.0, True)
      >>> covers(ring, jnp.array([0.0, 8.0, 12.0]), jnp.zeros(3))
      Array([False,  True, False], dtype=bool)
    """
    outline = jax.tree.map(lambda column: jnp.asarray(column)[thing.shapes], _TABLE)
    x, y = to_local(thing, x, y)
    r = jnp.hypot(x, y)
    u = functools.reduce(jnp.maximum, [tip[0] * x + tip[1] * y for tip in outline.tips])
    v = jnp.sqrt(jnp.maximum(r**2 - u**2, 0))
    cos, sin = jnp.cos(thing.bends), jnp.sin(thing.bends)
    lobes = cos * (x**3 - 3 * x * y**2) - sin * (3 * x**2 * y - y**3)
    rim = (1 + outline.bulge * lobes / jnp.maximum(r, 1e-3) ** 3) / (1 + outline.bulge)
    within = outline.edge[0] * u + outline.edge[1] * v < outline.offset
    return within & (outline.hole <= r) & (r < rim)
