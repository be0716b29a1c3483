"""Interpolation of images: onto another grid (`resize`) and at points (`sample`)."""

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
# With more pixels than this under the kernel, one matrix product is faster than gathers.
_MAX_GATHERS = 32
# Rows at either end of an axis where the border cuts the kernel.
_BORDER = 2


def resize(
    image: Shaped[Array, "*b h w c"],
    shape: tuple[int, int],
    *,
    method: str = "bilinear",
    align_corners: bool = False,
    antialias: bool = False,
) -> Shaped[jax.Array, "*b new_h new_w c"]:
    """Resize images, with the values of `torch.nn.functional.interpolate`.

    Along an axis, the centre of output pixel `i` lies at the input coordinate
    `(i + ½)·size/new_size − ½`, or at `i·(size − 1)/(new_size − 1)` with `align_corners`. Its value
    is `Σ_k w_k image[k]` over the nearest 2 ("bilinear") or 4 ("bicubic", a = −¾) pixels of each
    axis; outside the image the border pixels are repeated. "area" is the mean of the input pixels
    `⌊i·size/new_size⌋ … ⌈(i + 1)·size/new_size⌉ − 1`, "nearest-exact" the nearest pixel
    `⌊(i + ½)·size/new_size⌋`, and "nearest" pixel `⌊i·size/new_size⌋`.

    Args:
      image: `[*b, h, w, c]`, floating; any dtype for "nearest" and "nearest-exact". Pass masks as
        `mask[..., None]`.
      shape: (new_h, new_w) in pixels, static.
      method: "bilinear", "bicubic", "area", "nearest" or "nearest-exact".
      align_corners: Whether to align the centres of the corner pixels, instead of the outer edges
        of the image; "bilinear" and "bicubic" only.
      antialias: Whether to low-pass filter an axis that shrinks, with a kernel (for "bicubic"
        a = −½) that is `size/new_size` times as wide; "bilinear" and "bicubic" only.

    Returns:
      `[*b, new_h, new_w, c]` in the dtype of `image`; computed in at least float32.

    Raises:
      ValueError: If `image` has fewer than 3 axes or no pixels, if `shape` is not two positive
        sizes, or if an option is unknown or does not apply to `method`.
      TypeError: If `image` is not of a floating dtype and `method` computes means.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> ops.resize(jnp.array([0.0, 1.0])[:, None, None], (4, 1))[:, 0, 0]
      Array([0.  , 0.25, 0.75, 1.  ], dtype=float32)

    References:
      Keys, "Cubic convolution interpolation for digital image processing", 1981, eq. 15.
    """
    _check_method(method, (*_KERNELS, "area", "nearest", "nearest-exact"), image, "image")
    if image.ndim < 3 or 0 in image.shape[-3:-1]:
        raise ValueError(f"image: expected shape [*b, h, w, c] with pixels, got {image.shape}")
    if len(shape) != 2 or not all(
        isinstance(size, numbers.Integral) and size > 0 for size in shape
    ):
        raise ValueError(f"shape: expected two positive sizes (new_h, new_w), got {shape}")
    if method not in _KERNELS and (align_corners or antialias):
        raise ValueError(
            f"align_corners, antialias: expected False for method {method!r}, got "
            f"{align_corners}, {antialias}"
        )

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
    """Interpolate features at points: `Σ_jk w_j(y) w_k(x) features[j, k]`.

    The sum is over the nearest 2×2 ("bilinear") or 4×4 ("bicubic", a = −¾) pixels, or the
    pixel that contains the point ("nearest"). The values are those of
    `torch.nn.functional.grid_sample(align_corners=False)`, except that a "nearest" point on the
    edge between two pixels belongs to the right or lower one. Differentiable in both arguments.

    Args:
      features: `[h, w, c]`, floating; any dtype for "nearest".
      points: `[*n, 2]`, (x, y) in continuous pixels: (½, ½) is the centre of `features[0, 0]`.
      method: "bilinear", "bicubic" or "nearest".
      padding: Values outside the map: "zeros", "border" to repeat the border pixels, or
        "reflection" to mirror the map at its edges (repeatedly, as far as 10⁶ pixels).

    Returns:
      `[*n, c]` in the dtype of `features`; computed in at least float32. Values and gradients are
      finite for any point, however far outside.

    Raises:
      ValueError: If the shapes are wrong, or `method` or `padding` is unknown.
      TypeError: If `features` is not of a floating dtype and `method` is not "nearest".

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> features = jnp.array([[[0.0], [1.0]]])
      >>> ops.sample(features, jnp.array([[0.5, 0.5], [1.0, 0.5]]))[:, 0]
      Array([0. , 0.5], dtype=float32)

    References:
      Jaderberg et al., "Spatial transformer networks", 2015, eq. 5.
    """
    _check_method(method, (*_KERNELS, "nearest"), features, "features")
    if features.ndim != 3 or 0 in features.shape[:2]:
        raise ValueError(f"features: expected shape [h, w, c] with pixels, got {features.shape}")
    if points.ndim < 1 or points.shape[-1] != 2:
        raise ValueError(f"points: expected shape [*n, 2], got {points.shape}")
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
    """Coordinates folded back into `0..size` by mirroring at both ends."""
    folded = jnp.mod(jnp.clip(coordinates, -1e6, 1e6), 2 * size)
    return jnp.minimum(folded, 2 * size - folded)


def _reflect_index(index: jax.Array, size: int) -> jax.Array:
    """The pixel whose mirror image has this index: 0 for −1."""
    index = jnp.mod(index, 2 * size)
    return jnp.minimum(index, 2 * size - 1 - index)


def _check_method(method: str, methods: tuple[str, ...], values: Array, name: str) -> None:
    if method not in methods:
        raise ValueError(f"method: expected one of {', '.join(methods)}, got {method!r}")
    if not method.startswith("nearest") and not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name}: expected a floating dtype for {method!r}, got {values.dtype}")


def _cubic(distance: Any, a: float) -> tuple[Any, Any]:
    """The two pieces of Keys' kernel, for distances in 0..1 and in 1..2."""
    near = ((a + 2) * distance - (a + 3)) * distance**2 + 1
    far = a * (((distance - 5) * distance + 8) * distance - 4)
    return near, far


def _tap_weights(t: Any, method: str) -> list[tuple[int, Any]]:
    """(offset, weight) of the pixels around a point that lies `t` in 0..1 after pixel 0."""
    if method == "bilinear":
        return [(0, 1 - t), (1, t)]
    (left, _), (_, far_left) = _cubic(t, -0.75), _cubic(1 + t, -0.75)
    (right, _), (_, far_right) = _cubic(1 - t, -0.75), _cubic(2 - t, -0.75)
    return [(-1, far_left), (0, left), (1, right), (2, far_right)]


def _point_taps(coordinates: jax.Array, size: int, method: str) -> list[tuple[jax.Array, Any]]:
    """(index, weight) of the pixels around coordinates along one axis, in continuous pixels."""
    # Further out nothing changes, and a clipped coordinate fits int32.
    coordinates = jnp.clip(coordinates, -4, size + 4)
    if method == "nearest":
        return [(jnp.floor(coordinates).astype(jnp.int32), jnp.ones(coordinates.shape, bool))]
    first = jnp.floor(coordinates - 0.5)
    weights = _tap_weights(coordinates - 0.5 - first, method)
    return [(first.astype(jnp.int32) + offset, weight) for offset, weight in weights]


class _Grid(NamedTuple):
    """How one axis is resized."""

    size: int
    new_size: int
    method: str
    align_corners: bool
    antialias: bool


def _grid_matrix(grid: _Grid) -> np.ndarray:
    """The linear map of one axis, `[new_size, size]`; few entries of a row are nonzero."""
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
    """Multiplies one axis (negative) of `values` by the grid's matrix or its transpose."""
    matrix = _grid_matrix(grid)
    return _multiply(matrix.T if transposed else matrix, values, axis)


def _multiply(matrix: np.ndarray, values: jax.Array, axis: int) -> jax.Array:
    """`matrix` times one axis of `values`, by the fastest way for its pattern of zeros."""
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
    # A row with fewer taps repeats its first one with weight 0, so that no other NaN enters.
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
    """Whether every row is the one above shifted by a stride of 2 or more."""
    if len(matrix) < 2:
        return False
    stride = np.argmax(matrix[1] != 0) - np.argmax(matrix[0] != 0)
    moved = (np.roll(matrix[0], stride * row) for row in range(len(matrix)))
    return bool(stride > 1 and np.allclose(matrix, np.stack(list(moved))))


def _multiply_strided(matrix: np.ndarray, values: jax.Array, axis: int) -> jax.Array:
    """A weighted sum of strided slices, which compilers vectorise better than gathers."""
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


# A primitive because of its transpose: the transpose of a gather is a scatter, many times slower
# than a gather with the transposed matrix. All JAX transformations apply as usual.
_resample_p = Primitive("resample")
_resample_p.def_impl(jax.jit(_resample, static_argnames=("axis", "grid", "transposed")))
_resample_p.def_abstract_eval(_resampled_aval)
mlir.register_lowering(_resample_p, mlir.lower_fun(_resample, multiple_results=False))
ad.deflinear2(_resample_p, _transpose_resample)
batching.primitive_batchers[_resample_p] = _batch_resample
