"""The fully connected CRF: mean-field inference with Gaussian kernels over pairs of pixels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from segjax.numerics import accumulation_dtype, broadcast_where
from segjax.typing import Array

# Pixels whose kernel with all other pixels the exact sum holds at a time.
_CHUNK = 256


def mean_field(
    logits: Float[Array, "*b h w c"],
    image: Float[Array, "*b h w k"],
    *,
    iterations: int,
    spatial_weight: float | Float[Array, ""],
    spatial_sigma: float,
    bilateral_weight: float | Float[Array, ""],
    bilateral_sigma: tuple[float, float],
    compatibility: Float[Array, "c c"] | None = None,
    window: int | None = None,
    normalization: str = "symmetric",
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w c"]:
    """Mean-field inference in a fully connected CRF with Gaussian kernels (DenseCRF).

    Starts from `Q = softmax(logits)` and updates all pixels at once, `iterations` times:
    `Q_i(c) ∝ exp(logits_i(c) − Σ_d μ(c, d) Σ_m w_m Σ_{j≠i} k_m(i, j) Q_j(d))`, with the two kernels
    of `bilateral_sum`: one of position alone, one of position and colour. Differentiable in all
    arrays, so it can be a layer of a network.

    Args:
      logits: `[*b, h, w, c]`, the negative unary energies.
      image: `[*b, h, w, k]`, colours or other features that are compared.
      iterations: Number of updates, static, at least 0.
      spatial_weight: Weight `w` of the spatial kernel, a number or a scalar array.
      spatial_sigma: Standard deviation of the spatial kernel in pixels.
      bilateral_weight: Weight `w` of the bilateral kernel, a number or a scalar array.
      bilateral_sigma: Standard deviations of the bilateral kernel: (position in pixels, colour in
        the units of `image`).
      compatibility: `[c, c]`, `μ`, the cost of class c (row) beside class d (column); None for the
        Potts model, which is 1 where they differ.
      window: Greatest distance in pixels, along rows and along columns, between connected pixels;
        None connects all of them, at a cost quadratic in their number.
      normalization: "symmetric" divides a kernel by `√(n_i n_j)`, with `n_i = Σ_j k(i, j)` over
        all j including i; "none" leaves it as it is.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, which are connected to none.

    Returns:
      `log Q`, `[*b, h, w, c]`, at least float32; uniform at void pixels.

    Raises:
      ValueError: If the shapes do not fit together, or an option is out of its range.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> logits = jnp.array([[[2.0, 0.0], [0.0, 0.5], [2.0, 0.0]]])  # the middle one disagrees
      >>> grey = jnp.zeros((1, 3, 1))
      >>> log_q = ops.mean_field(
      ...     logits, grey, iterations=5, spatial_weight=3.0, spatial_sigma=1.0,
      ...     bilateral_weight=0.0, bilateral_sigma=(1.0, 1.0),
      ... )
      >>> jnp.argmax(log_q, axis=-1)
      Array([[0, 0, 0]], dtype=int32)

    References:
      Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
      potentials", 2011, algorithm 1; as a layer: Zheng et al., "Conditional random fields as
      recurrent neural networks", 2015. Normalisation: Krähenbühl and Koltun, "Parameter learning
      and convergent inference for dense random fields", 2013, section 5.
    """
    _check_same_pixels("logits", logits, image)
    if iterations < 0:
        raise ValueError(f"iterations: expected at least 0, got {iterations}")
    if normalization not in ("symmetric", "none"):
        raise ValueError(f'normalization: expected "symmetric" or "none", got {normalization!r}')
    num_classes = logits.shape[-1]
    if compatibility is not None and compatibility.shape != (num_classes, num_classes):
        expected = (num_classes, num_classes)
        raise ValueError(f"compatibility: expected shape {expected}, got {compatibility.shape}")

    valid = broadcast_where(where, logits.shape[:-1])[..., None]
    dtype = accumulation_dtype(logits, image)
    logits = jnp.where(valid, logits.astype(dtype), 0)
    image = jnp.where(valid, image.astype(dtype), 0)
    present = valid.astype(dtype)
    spatial_sum = functools.partial(
        bilateral_sum, image=image, spatial_sigma=spatial_sigma, window=window
    )
    color_sum = functools.partial(
        bilateral_sum,
        image=image,
        spatial_sigma=bilateral_sigma[0],
        color_sigma=bilateral_sigma[1],
        window=window,
    )
    terms = []
    for weight, sum_over_others in [(spatial_weight, spatial_sum), (bilateral_weight, color_sum)]:
        scale = present
        if normalization == "symmetric":
            scale = present * jax.lax.rsqrt(1 + sum_over_others(present))
        terms.append((sum_over_others, scale, weight * scale))

    def update(log_q, _):
        q = jnp.exp(log_q)
        messages = sum(
            weight * sum_over_others(scale * q) for sum_over_others, scale, weight in terms
        )
        # Potts: Σ_{d≠c} of the messages, up to a constant of the pixel.
        cost = -messages if compatibility is None else messages @ compatibility.T
        return jax.nn.log_softmax(logits - cost), None

    return jax.lax.scan(update, jax.nn.log_softmax(logits), length=iterations)[0]


def bilateral_sum(
    values: Float[Array, "*b h w c"],
    image: Float[Array, "*b h w k"],
    *,
    spatial_sigma: float,
    color_sigma: float | None = None,
    window: int | None = None,
) -> Float[jax.Array, "*b h w c"]:
    """Gaussian-weighted sum of the values of all other pixels.

    `out_i = Σ_{j≠i} exp(−|x_i − x_j|²/2σ² − |I_i − I_j|²/2s²) v_j`, where `x` are positions.

    Only the arguments are kept for the backward pass, which computes the kernel again.

    Args:
      values: `[*b, h, w, c]`, the summands `v`.
      image: `[*b, h, w, k]`, the colours `I`; not used where `color_sigma` is None.
      spatial_sigma: Standard deviation `σ` of positions in pixels.
      color_sigma: Standard deviation `s` of colours in the units of `image`; None ignores colours.
      window: Sums only over pixels at most this many rows and columns away; None sums over all,
        at a cost quadratic in their number.

    Returns:
      `[*b, h, w, c]`, at least float32.

    Raises:
      ValueError: If the shapes do not fit together or an option is out of its range.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import ops
      >>> values = jnp.array([1.0, 0.0, 0.0]).reshape(1, 3, 1)
      >>> jnp.log(ops.bilateral_sum(values, values, spatial_sigma=1.0)[0, :, 0])
      Array([-inf, -0.5, -2. ], dtype=float32)

    References:
      Krähenbühl and Koltun, "Efficient inference in fully connected CRFs with Gaussian edge
      potentials", 2011, eq. 3.
    """
    _check_same_pixels("values", values, image)
    if spatial_sigma <= 0 or (color_sigma is not None and color_sigma <= 0):
        raise ValueError(
            "spatial_sigma, color_sigma: expected positive numbers, got "
            f"{spatial_sigma}, {color_sigma}"
        )
    if window is not None and window < 0:
        raise ValueError(f"window: expected at least 0, got {window}")
    dtype = accumulation_dtype(values, image)
    # Channels first, so that the innermost loops run along rows.
    values, image = (jnp.moveaxis(a.astype(dtype), -1, 0) for a in (values, image))
    y, x = jnp.mgrid[: values.shape[-2], : values.shape[-1]].astype(dtype) / spatial_sigma
    features = [jnp.broadcast_to(a, values.shape[1:]) for a in (y, x)]
    if color_sigma is not None:
        features += list(image / color_sigma)
    kernel_sum = (
        _sum_over_all if window is None else functools.partial(_sum_over_window, reach=window)
    )
    return jnp.moveaxis(kernel_sum(values, jnp.stack(features)), 0, -1)


def _check_same_pixels(name: str, array: Array, image: Array) -> None:
    if array.ndim < 3 or image.ndim < 3 or array.shape[:-1] != image.shape[:-1]:
        raise ValueError(
            f"{name}, image: expected shapes [*b, h, w, c], [*b, h, w, k], got {array.shape}, "
            f"{image.shape}"
        )


def _kernel(features: jax.Array, others: jax.Array) -> jax.Array:
    """`exp(−½|f_i − f_j|²)`, with the features along the first axis."""
    squares = [(a - b) ** 2 for a, b in zip(features, others, strict=True)]
    return jnp.exp(-0.5 * functools.reduce(jnp.add, squares))


def _sum_over_window(values: jax.Array, features: jax.Array, *, reach: int) -> jax.Array:
    """Adds up shifted copies of the whole image; values outside it are 0."""
    height, width = values.shape[-2:]
    reach_y, reach_x = min(reach, height - 1), min(reach, width - 1)
    shifts = np.mgrid[: 2 * reach_y + 1, : 2 * reach_x + 1].reshape(2, -1).T
    shifts = shifts[np.any(shifts != (reach_y, reach_x), axis=1)]
    margins = [(reach_y, reach_y), (reach_x, reach_x)]
    padded = [jnp.pad(a, [(0, 0)] * (a.ndim - 2) + margins) for a in (values, features)]

    @jax.checkpoint
    def term(padded, features, shift):
        rows = (jax.lax.dynamic_slice_in_dim(a, shift[0], height, axis=-2) for a in padded)
        shifted = (jax.lax.dynamic_slice_in_dim(a, shift[1], width, axis=-1) for a in rows)
        other_values, other_features = shifted
        return _kernel(features, other_features) * other_values

    def add(total, shift):
        return total + term(padded, features, shift), None

    return jax.lax.scan(add, jnp.zeros_like(values), shifts)[0]


def _sum_over_all(values: jax.Array, features: jax.Array) -> jax.Array:
    """Multiplies by the whole kernel matrix, a block of rows at a time."""
    shape = values.shape
    values, features = (a.reshape(*a.shape[:-2], -1) for a in (values, features))
    pixels = jnp.arange(values.shape[-1])

    @jax.checkpoint
    def at_pixel(pixel):
        own = jax.lax.dynamic_index_in_dim(features, pixel, axis=-1)
        kernel = jnp.where(pixels == pixel, 0, _kernel(own, features))
        return jnp.einsum("c...n,...n->c...", values, kernel, precision=jax.lax.Precision.HIGHEST)

    sums = jax.lax.map(at_pixel, pixels, batch_size=_CHUNK)
    return jnp.moveaxis(sums, 0, -1).reshape(shape)
