"""Textures of stuff and things: patterns in -1..1."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Float

from segjax.data.synthetic.draws import normal, uniform
from segjax.typing import Array

STUFF = ("clouds", "gravel", "waves", "bricks")
PATTERNS = ("plain", "striped", "dotted", "checkered")


def noise(
    key: jax.Array, shape: tuple[int, ...], *, cells: Sequence[float], channels: int = 1
) -> list[Float[jax.Array, "c h w"]]:
    """Smooth noise at several scales: normal values on a grid, interpolated in between.

    Args:
      key: random key.
      shape: (height, width) in pixels.
      cells: grid spacing of each scale, in pixels.
      channels: number of independent maps of each scale.

    Returns:
      For each scale, noise of about unit variance.
    """
    grids = [[round(size / cell) + 1 for size in shape] for cell in cells]
    values = normal(key, (len(cells), channels, *max(grids)))
    return [
        jax.image.resize(value[:, :rows, :cols], (channels, *shape), "cubic")
        for value, (rows, cols) in zip(values, grids, strict=True)
    ]


def stuff_textures(key: jax.Array, shape: tuple[int, ...]) -> Float[jax.Array, "4 h w"]:
    """One texture for each of `STUFF`, at a scale and an angle of its own.

    Args:
      key: random key.
      shape: (height, width) in pixels.

    Returns:
      Textures in -1..1.
    """
    noise_key, frame_key = jax.random.split(key)
    clouds, gravel, swell = noise(noise_key, shape, cells=(10.0, 2.5, 16.0))
    (tilt, other_tilt), (size, other_size) = uniform(frame_key, (2, 2))
    _, y = _frame(shape, tilt, size)
    waves = jnp.sin(2 * jnp.pi * (y / 7 + 0.35 * swell))
    bricks = _bricks(*_frame(shape, other_tilt, other_size))
    return jnp.concatenate([jnp.tanh(clouds), jnp.tanh(2 * gravel), waves, bricks[None]])


def _frame(
    shape: tuple[int, ...], tilt: Float[Array, ""], size: Float[Array, ""]
) -> tuple[Float[jax.Array, "h w"], Float[jax.Array, "h w"]]:
    """x and y of the pixels, turned by 0.4 radians at most and scaled by 0.8 to 1.3."""
    y, x = jnp.mgrid[: shape[0], : shape[1]].astype(jnp.float32) / (0.8 + 0.5 * size)
    cos, sin = jnp.cos(0.8 * tilt - 0.4), jnp.sin(0.8 * tilt - 0.4)
    return cos * x + sin * y, cos * y - sin * x


def _bricks(x: Float[Array, "h w"], y: Float[Array, "h w"]) -> Float[jax.Array, "h w"]:
    """Bricks of 14 by 7 pixels in running bond: 1, and -1 in the mortar."""
    course = jnp.floor(y / 7)
    mortar = (y % 7 < 1.5) | ((x + 7 * course) % 14 < 1.5)
    return jnp.where(mortar, -1.0, 1.0)


def thing_textures(u: Float[Array, "h w"], v: Float[Array, "h w"]) -> Float[jax.Array, "4 h w"]:
    """One texture for each of `PATTERNS`, in a thing's own frame: 1 and -1.

    Args:
      u: coordinate along the thing's first axis; the thing spans -1..1.
      v: coordinate along its second axis.

    Returns:
      Textures of -1 and 1.
    """
    u, v = jnp.sin(3 * jnp.pi * u), jnp.sin(3 * jnp.pi * v)
    patterns = [jnp.ones_like(u, bool), u > 0, u + v < 0.8, (u > 0) == (v > 0)]
    return jnp.where(jnp.stack(patterns), 1.0, -1.0)
