"""Resampling images: onto another pixel grid (`resize`) and at points (`sample`)."""

import functools
import itertools
import numbers
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Float, Shaped

from segjax.numerics import accumulation_dtype
from segjax.typing import Array

_KERNELS = ("bilinear", "bicubic")
# With more pixels than this under the kernel, one matrix product beats a gather for each.
_MAX_GATHERS = 32
# Rows at either end of an axis whose kernel the border cuts.
_BORDER = 2


def resize(
    image: Shaped[Array, "*b h w c"],
    shape: tuple[int, int],
    *,
    method: str = "bilinear",
    align_corners: bool = False,
    antialias: bool = False,
) -> Shaped[jax.Array, "*b new_h new_w c"]:
    """The image on a grid of another size, with the values of `torch.nn.functional.interpolate`.

    Output pixel `i` of an axis lies at input coordinate `(i + ½)·size/new_size − ½`, counted in
    pixel centres; with `align_corners` at `i·(size − 1)/(new_size − 1)`. The value there is
    `Σ_k w_k image[k]` over the nearest 2 ("bilinear") or 4 ("bicubic", a = −¾) pixels of each axis,
    the border pixels repeated outside. "area" is the mean of the input pixels from
    `⌊i·size/new_size⌋` to before `⌈(i + 1)·size/new_size⌉`; "nearest-exact" is pixel
    `⌊(i + ½)·size/new_size⌋`, the nearest indeed, and "nearest" is `⌊i·size/new_size⌋`.

    Args:
      image: `[*b, h, w, c]`, floating; of any dtype for "nearest" and "nearest-exact". A mask goes
        as `mask[..., None]`.
      shape: (new_h, new_w), static.
      method: "bilinear", "bicubic", "area", "nearest" or "nearest-exact".
      align_corners: whether the centres of the corner pixels stay where they are, instead of the
        outer edges of the image. For "bilinear" and "bicubic" alone.
      antialias: whether an axis that shrinks is low-pass filtered: the kernel (for "bicubic"
        a = −½) is widened to `size/new_size` and normalised. Likewise.

    Returns:
      `[*b, new_h, new_w, c]` in the dtype of `image`; computed in at least float32.

    Raises:
      ValueError: if `image` has fewer than 3 axes or an empty one, if `shape` is not two positive
        sizes, or if the options do not fit together.
      TypeError: if `image` is not floating and `method` takes means.

    Example:
      >>> resize(jnp.array([0.0, 1.0])[:, None, None], (4, 1))[:, 0, 0]
      Array([0.  , 0.25, 0.75, 1.  ], dtype=float32)

    References:
      Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15.
    """
    _check_method(method, (*_KERNELS, "area", "nearest", "nearest-exact"), image, "image")
    if image.ndim < 3 or 0 in image.shape[-3:-1]:
        raise ValueError(f"image has shape {image.shape}; due is [*b, h, w, c] with pixels")
    if len(shape) != 2 or not all(
        isinstance(size, numbers.Integral) and size > 0 for size in shape
    ):
        raise ValueError(f"shape is {shape}; due are two positive sizes (new_h, new_w)")
    if method not in _KERNELS and (align_corners or antialias):
        raise ValueError(f'method "{method}" takes neither align_corners nor antialias')

    floating = jnp.issubdtype(image.dtype, jnp.floating)
    result = jnp.asarray(image, accumulation_dtype(image) if floating else None)
    for axis, new_size in zip((-3, -2), shape, strict=True):
        if new_size != image.shape[axis]:
            grid = _Grid(image.shape[axis], new_size, method, align_corners, antialias)
            result = _resample_p.bind(result, axis=axis, grid=grid, transposed=False)
    return result.astype(image.dtype)


def sample(
    features: Shaped[Array, "h w c"],
    points: Float[Array, "*n 2"],
    *,
    method: str = "bilinear",
    padding: str = "zeros",
) -> Shaped[jax.Array, "*n c"]:
    """The features at points between the pixels: `Σ_jk w_j(y) w_k(x) features[j, k]`.

    The sum is over the nearest 2×2 ("bilinear") or 4×4 ("bicubic", a = −¾) pixels, or the one
    pixel that contains the point ("nearest"). With `points` in pixels it has the values of
    `torch.nn.functional.grid_sample(align_corners=False)`, but that a "nearest" point on the edge
    between two pixels belongs to the right or lower one. Differentiable in both arguments.

    Args:
      features: `[h, w, c]`, floating; of any dtype for "nearest".
      points: `[*n, 2]`, (x, y) in continuous pixels: (½, ½) is the centre of `features[0, 0]`.
      method: "bilinear", "bicubic" or "nearest".
      padding: what lies outside: "zeros", "border" for the border pixels repeated, or "reflection"
        for the picture mirrored at its edges, again and again (as far as 10⁶ pixels).

    Returns:
      `[*n, c]` in the dtype of `features`; computed in at least float32. Points however far
      outside have finite values and gradients.

    Raises:
      ValueError: if the shapes are wrong, or `method` or `padding` unknown.
      TypeError: if `features` is not floating and `method` is not "nearest".

    Example:
      >>> features = jnp.array([[[0.0], [1.0]]])
      >>> sample(features, jnp.array([[0.5, 0.5], [1.0, 0.5]]))[:, 0]
      Array([0. , 0.5], dtype=float32)

    References:
      Jaderberg et al., "Spatial transformer networks", 2015, eq. 5.
    """
    _check_method(method, (*_KERNELS, "nearest"), features, "features")
    if features.ndim != 3 or 0 in features.shape[:2]:
        raise ValueError(f"features has shape {features.shape}; due is [h, w, c] with pixels")
    if points.ndim < 1 or points.shape[-1] != 2:
        raise ValueError(f"points has shape {points.shape}; due is [*n, 2]")
    if padding not in ("zeros", "border", "reflection"):
        raise ValueError(f'padding: expected "zeros", "border" or "reflection", got {padding!r}')

    height, width, channels = features.shape
    rows = jnp.asarray(features).reshape(height * width, channels)
    points = jnp.asarray(points, accumulation_dtype(points))
    if padding == "reflection":
        points = _reflect(points, jnp.array([width, height], points.dtype))
    total: Any = 0
    for (y, weight_y), (x, weight_x) in itertools.product(
        _point_taps(points[..., 1], height, method), _point_taps(points[..., 0], width, method)
    ):
        if padding == "border":
            y, x = jnp.clip(y, 0, height - 1), jnp.clip(x, 0, width - 1)
        elif padding == "reflection":
            y, x = _reflect_index(y, height), _reflect_index(x, width)
        inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
        index = jnp.where(inside, y * width + x, len(rows))
        values = rows.at[index].get(mode="fill", fill_value=0)
        total += (weight_y * weight_x)[..., None] * values
    return total.astype(features.dtype)


def _reflect(coordinates: jax.Array, size: jax.Array) -> jax.Array:
    """The same place in the picture, `0..size`, of which its mirror images lie around it."""
    folded = jnp.mod(jnp.clip(coordinates, -1e6, 1e6), 2 * size)
    return jnp.minimum(folded, 2 * size - folded)


def _reflect_index(index: jax.Array, size: int) -> jax.Array:
    """The pixel that one just outside is the mirror image of: of −1 it is 0."""
    index = jnp.mod(index, 2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)


def _check_method(method: str, methods: tuple[str, ...], values: Array, name: str) -> None:
    if method not in methods:
        raise ValueError(f"method: expected one of {', '.join(methods)}, got {method!r}")
    if not method.startswith("nearest") and not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name} is {values.dtype}; method {method!r} needs a floating dtype")


def _cubic(distance: Any, a: float) -> tuple[Any, Any]:
    """The two pieces of Keys' kernel: for distances in 0..1 and in 1..2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return near, far


def _tap_weights(t: Any, method: str) -> list[tuple[int, Any]]:
    """(offset, weight) of each pixel around a point that is `t` in 0..1 right of pixel 0."""
    if method == "bilinear":
        return [(0, 1 - t), (1, t)]
    (left, _), (_, far_left) = _cubic(t, -0.75), _cubic(1 + t, -0.75)
    (right, _), (_, far_right) = _cubic(1 - t, -0.75), _cubic(2 - t, -0.75)
    return [(-1, far_left), (0, left), (1, right), (2, far_right)]


def _point_taps(coordinates: jax.Array, size: int, method: str) -> list[tuple[jax.Array, Any]]:
    """(index, weight) of the pixels around each coordinate of one axis, in continuous pixels."""
    # Further out nothing changes any more, and a clipped coordinate has an integer part.
    coordinates = jnp.clip(coordinates, -4, size + 4)
    if method == "nearest":
        return [(jnp.floor(coordinates).astype(jnp.int32), jnp.ones(coordinates.shape, bool))]
    first = jnp.floor(coordinates - 0.5)
    weights = _tap_weights(coordinates - 0.5 - first, method)
    return [(first.astype(jnp.int32) + offset, weight) for offset, weight in weights]


class _Grid(NamedTuple):
    """How one axis is resized: what its matrix follows from."""

    size: int
    new_size: int
    method: str
    align_corners: bool
    antialias: bool


def _grid_matrix(grid: _Grid) -> np.ndarray:
    """The linear map of one axis, `[new_size, size]`: few weights of a row are not 0."""
    size, new_size, method, align_corners, antialias = grid
    scale = size / new_size
    if align_corners:
        scale = (size - 1) / (new_size - 1) if new_size > 1 else 0.0
    rows = np.arange(new_size)
    if antialias:
        distance = np.abs(np.arange(size) + 0.5 - scale * (rows[:, None] + 0.5)) / max(scale, 1)
        weights = _antialias_kernel(distance, method)
        return weights / weights.sum(axis=1, keepdims=True)

    if method == "area":
        starts, ends = rows * size // new_size, -(-(rows + 1) * size // new_size)
        pixels = np.arange(size)
        inside = (starts[:, None] <= pixels) & (pixels < ends[:, None])
        return inside / inside.sum(axis=1, keepdims=True)

    if method.startswith("nearest"):
        # float32 decides where i·size/new_size falls just short of a whole number, as in torch.
        places = rows.astype(np.float32) + np.float32(0.5 if method == "nearest-exact" else 0)
        first = np.floor(places * np.float32(scale))
        taps = [(0, np.ones(new_size))]
    else:
        coordinates = scale * rows + (0 if align_corners else 0.5 * scale - 0.5)
        first = np.floor(coordinates)
        taps = _tap_weights(coordinates - first, method)
    matrix = np.zeros((new_size, size))
    for offset, weight in taps:
        np.add.at(matrix, (rows, np.clip(first.astype(int) + offset, 0, size - 1)), weight)
    return matrix


def _antialias_kernel(distance: np.ndarray, method: str) -> np.ndarray:
    if method == "bilinear":
        return np.maximum(1 - distance, 0)
    near, far = _cubic(distance, -0.5)
    return np.where(distance < 1, near, np.where(distance < 2, far, 0))


def resize_matrix(size: int, new_size: int, *, align_corners: bool = False) -> np.ndarray:
    """`resize` by bilinear interpolation along one axis, as a matrix `[new_size, size]`."""
    return _grid_matrix(_Grid(size, new_size, "bilinear", align_corners, antialias=False))


def _resample(values: jax.Array, *, axis: int, grid: _Grid, transposed: bool) -> jax.Array:
    """One axis of `values` (counted from the last) times the grid's matrix, or its transpose."""
    matrix = _grid_matrix(grid)
    return _multiply(matrix.T if transposed else matrix, values, axis)


def _multiply(matrix: np.ndarray, values: jax.Array, axis: int) -> jax.Array:
    """`matrix` times one axis of `values`, by what is fastest for its pattern of zeros."""
    rows, columns = np.nonzero(matrix)
    place = np.arange(rows.size) - np.searchsorted(rows, rows)
    taps = int(place.max()) + 1
    if taps > _MAX_GATHERS:
        dense = jnp.asarray(matrix, values.dtype)
        result = jnp.tensordot(values, dense, (axis, 1), precision=jax.lax.Precision.HIGHEST)
        return jnp.moveaxis(result, -1, axis)
    if _is_strided(matrix[_BORDER:-_BORDER]):
        middle = _multiply_strided(matrix[_BORDER:-_BORDER], values, axis)
        first, last = (_multiply(m, values, axis) for m in (matrix[:_BORDER], matrix[-_BORDER:]))
        return jnp.concatenate([first, middle, last], axis)
    # A row with fewer taps repeats its first one at weight 0, so that no other pixel's NaN enters.
    index = np.repeat(np.argmax(matrix != 0, axis=1)[:, None], taps, axis=1)
    index[rows, place] = columns
    weights = np.zeros(index.shape)
    weights[rows, place] = matrix[rows, columns]
    weights = np.expand_dims(weights, tuple(range(axis + 1, 0)))
    return functools.reduce(
        jnp.add,
        (
            jnp.take(values, index[:, tap], axis, mode="clip")
            * jnp.asarray(weights[:, tap], values.dtype)
            for tap in range(taps)
        ),
    )


def _is_strided(matrix: np.ndarray) -> bool:
    """Whether every row is the one above, moved right by a stride: as where one size divides the
    other, but for the borders.
    """
    if len(matrix) < 2:
        return False
    stride = np.argmax(matrix[1] != 0) - np.argmax(matrix[0] != 0)
    moved = (np.roll(matrix[0], stride * row) for row in range(len(matrix)))
    return bool(stride > 1 and np.allclose(matrix, np.stack(list(moved))))


def _multiply_strided(matrix: np.ndarray, values: jax.Array, axis: int) -> jax.Array:
    """Weighted slices, which a compiler vectorises better than gathers."""
    taps = np.flatnonzero(matrix[0])
    stride = int(np.argmax(matrix[1] != 0) - taps[0])
    length = stride * (len(matrix) - 1) + 1
    return functools.reduce(
        jnp.add,
        (
            jax.lax.slice_in_dim(values, tap, tap + length, stride, axis=axis % values.ndim)
            * jnp.asarray(matrix[0, tap], values.dtype)
            for tap in taps.tolist()
        ),
    )


def _resampled_aval(values: Any, *, axis: int, grid: _Grid, transposed: bool) -> Any:
    shape = list(values.shape)
    shape[axis] = grid.size if transposed else grid.new_size
    return values.update(shape=tuple(shape))


def _transpose_resample(
    cotangent: Any, values: Any, *, axis: int, grid: _Grid, transposed: bool
) -> list[Any]:
    return [_resample_p.bind(cotangent, axis=axis, grid=grid, transposed=not transposed)]


def _batch_resample(args: Any, batch_axes: Any, **params: Any) -> tuple[Any, int]:
    return _resample_p.bind(jnp.moveaxis(args[0], batch_axes[0], 0), **params), 0


# A primitive of its own for the sake of its transpose: that of a gather is a scatter, many times
# slower than gathering with the transposed matrix. Every transformation of JAX applies as usual.
_resample_p = Primitive("resample")
_resample_p.def_impl(jax.jit(_resample, static_argnames=("axis", "grid", "transposed")))
_resample_p.def_abstract_eval(_resampled_aval)
mlir.register_lowering(_resample_p, mlir.lower_fun(_resample, multiple_results=False))
ad.deflinear2(_resample_p, _transpose_resample)
batching.primitive_batchers[_resample_p] = _batch_resample
