"""Operations on images that fill only part of a canvas; see `models.blind_beyond`.

Outside that context every image fills its canvas.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Bool, Float, Int

from segjax import ops
from segjax.typing import Array


class Extent(nn.Module):
    """The (rows, columns) of a map `[*b, h, w, c]` that belong to the image, int32 `[*b, 2]`.

    None if that is all of it; `models.blind_beyond` intercepts the call.
    """

    def __call__(self, x: Float[jax.Array, "..."]) -> Int[jax.Array, "*b 2"] | None:
        return None


def inside(extent: Int[Array, "*b 2"], shape: tuple[int, int]) -> Bool[jax.Array, "*b h w"]:
    """True in the first rows and columns, as many as in `extent`."""
    rows, columns = jnp.split(jnp.asarray(extent)[..., None, :], 2, axis=-1)
    height, width = shape
    return (jnp.arange(height)[:, None] < rows) & (jnp.arange(width) < columns)


def picture_pixels(x: Float[jax.Array, "*b h w c"]) -> Bool[jax.Array, "*b h w"] | None:
    """The pixels of a map that belong to the image; None if all do."""
    extent = Extent()(x)
    return None if extent is None else inside(extent, (x.shape[-3], x.shape[-2]))


def picture_tokens(x: Float[jax.Array, "*b h w c"]) -> Bool[jax.Array, "*b n"] | None:
    """The pixels of a map that belong to the image, row by row; None if all do."""
    where = picture_pixels(x)
    return None if where is None else where.reshape(*where.shape[:-2], -1)


def global_mean(x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b 1 1 c"]:
    """The mean over the image."""
    where = picture_pixels(x)
    where = None if where is None else where[..., None]
    return jnp.mean(x, (-3, -2), keepdims=True, where=where)


def repeat_border(x: Float[jax.Array, "*b h w c"]) -> Float[jax.Array, "*b h w c"]:
    """Repeats the last row and column of the image beyond its end."""
    extent = Extent()(x)
    if extent is None:
        return x
    for axis in (-3, -2):
        last = extent[..., axis + 3, None] - 1
        x = _take(x, jnp.minimum(jnp.arange(x.shape[axis]), last), axis)
    return x


def upsample(
    x: Float[jax.Array, "*b h w c"], shape: tuple[int, int], *, align_corners: bool = False
) -> Float[jax.Array, "*b new_h new_w c"]:
    """Bilinear upsampling of the image; on a canvas, by integer factors."""
    extent = Extent()(x)
    if extent is None or not align_corners:
        return ops.resize(repeat_border(x), shape, align_corners=align_corners)
    dtype, x = x.dtype, x.astype(jnp.promote_types(x.dtype, jnp.float32))
    for axis, new_size in zip((-3, -2), shape, strict=True):
        last = extent[..., axis + 3, None] - 1
        new_last = jnp.maximum((last + 1) * (new_size // x.shape[axis]) - 1, 1)
        place = jnp.minimum(jnp.arange(new_size) * last / new_last, last)
        before = place.astype(jnp.int32)
        share = _spread(place - before, x, axis).astype(x.dtype)
        behind = jnp.minimum(before + 1, last)
        x = (1 - share) * _take(x, before, axis) + share * _take(x, behind, axis)
    return x.astype(dtype)


def _take(x: jax.Array, places: jax.Array, axis: int) -> jax.Array:
    """The rows or columns of each example at `places`, `[*b, n]`."""
    return jnp.take_along_axis(x, _spread(places, x, axis), axis)


def _spread(values: jax.Array, x: jax.Array, axis: int) -> jax.Array:
    """Reshapes values `[*b, n]` to broadcast along an axis of `x`."""
    *lead, size = values.shape
    between, behind = x.ndim + axis - len(lead), -1 - axis
    return values.reshape(*lead, *[1] * between, size, *[1] * behind)
