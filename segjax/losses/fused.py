"""Cross-entropy and Dice loss computed together, also from logits of a lower resolution.

They share one softmax and compute the probabilities again for the gradient, so that memory for
another array of the size of the full-resolution logits is never needed.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Integer

from segjax.labels import valid_labels
from segjax.losses.region import Smooth, smooth_ratio
from segjax.numerics import accumulation_dtype
from segjax.ops.interpolation import resize, resize_matrix
from segjax.typing import Array


def cross_entropy_and_dice(
    logits: Float[Array, "*b h w c"],
    labels: Integer[Array, "*b h w"],
    *,
    smooth: Smooth = 0.0,
    block: int | None = None,
    where: Bool[Array, "..."] | None = None,
) -> tuple[Float[jax.Array, "*b h w"], Float[jax.Array, "*b c"]]:
    """Softmax cross-entropy of every pixel and Dice loss of every class, computed together.

    `−log p_y` and `1 − (2Σpy + s) / (Σp + Σy + s)` with `p = softmax(logits)`. The results are
    those of `softmax_cross_entropy`, and of `dice_loss` with one-hot labels, in less time and
    memory. Differentiable in reverse mode (`jax.grad`, `jax.hessian`), but not by `jax.jvp` or
    `jax.jacfwd` alone.

    Args:
      logits: `[*b, h, w, c]`.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      smooth: `s`, in pixels; or a pair, `s` of the numerator and of the denominator.
      block: Approximate number of pixels to process at a time; None for a whole image, which needs
        memory for another copy of `logits`. 2¹⁵ suits a CPU, and takes half as long again.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose values may be anything.

    Returns:
      The cross-entropy `[*b, h, w]` in nats, 0 for void pixels; and the Dice loss `[*b, c]` in
      0..1, 0 for a class that is neither predicted nor present. Both at least float32.

    Raises:
      ValueError: If the shapes do not fit together, or `block` is not positive.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> logits = jnp.array([[[0.0, 0.0], [0.0, 0.0]]])
      >>> losses.cross_entropy_and_dice(logits, jnp.array([[1, 1]]))[1].round(3)
      Array([1.   , 0.333], dtype=float32)

    References:
      Isensee et al., "nnU-Net: a self-configuring method for deep learning-based biomedical
      image segmentation", 2021, methods (the sum of both losses).
    """
    if logits.shape[:-1] != labels.shape:
        raise ValueError(f"labels: expected shape {logits.shape[:-1]}, got {labels.shape}")
    losses, *sums = _terms(logits, labels, where, False, block)
    return losses, _dice_loss(sums, smooth)


def resized_cross_entropy(
    logits: Float[Array, "*b low_h low_w c"],
    labels: Integer[Array, "*b h w"],
    *,
    align_corners: bool = False,
    block: int | None = 2**15,
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b h w"]:
    """Softmax cross-entropy of logits resized to the labels: `−log softmax(resize(logits))_y`.

    The same as `softmax_cross_entropy(ops.resize(logits, (h, w)), labels)`, but the resized logits
    are computed in blocks of rows and never stored as a whole. Differentiable in reverse mode only.
    For class weights, multiply by `pixel_weights`.

    Args:
      logits: `[*b, low_h, low_w, c]`; resized by bilinear interpolation in at least float32.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      align_corners: Whether to align the centres of the corner pixels, as in `ops.resize`.
      block: Approximate number of pixels of the labels to process at a time; None for a whole
        image.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose labels may be anything.

    Returns:
      `[*b, h, w]` in nats, at least float32; 0 for void pixels.

    Raises:
      ValueError: If the shapes do not fit together, or `block` is not positive.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> losses.resized_cross_entropy(jnp.zeros((1, 1, 2)), jnp.array([[0, 1]])).round(2)
      Array([[0.69, 0.69]], dtype=float32)

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section
      3.3 (logits upsampled bilinearly, the loss at full resolution).
    """
    return _terms(logits, labels, where, align_corners, block)[0]


def resized_cross_entropy_and_dice(
    logits: Float[Array, "*b low_h low_w c"],
    labels: Integer[Array, "*b h w"],
    *,
    smooth: Smooth = 0.0,
    align_corners: bool = False,
    block: int | None = 2**15,
    where: Bool[Array, "..."] | None = None,
) -> tuple[Float[jax.Array, "*b h w"], Float[jax.Array, "*b c"]]:
    """Softmax cross-entropy and Dice loss of logits resized to the labels, computed together.

    The same as `cross_entropy_and_dice(ops.resize(logits, (h, w)), labels)`, in blocks of rows.

    Args:
      logits: `[*b, low_h, low_w, c]`; resized by bilinear interpolation in at least float32.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      smooth: `s` of the Dice loss, in pixels of the labels; or a pair, `s` of the numerator and of
        the denominator.
      align_corners: Whether to align the centres of the corner pixels, as in `ops.resize`.
      block: Approximate number of pixels of the labels to process at a time; None for a whole
        image.
      where: Broadcasts to `[*b, h, w]`; False for void pixels, whose labels may be anything.

    Returns:
      The cross-entropy `[*b, h, w]` in nats and the Dice loss `[*b, c]` in 0..1; at least float32.

    Raises:
      ValueError: If the shapes do not fit together, or `block` is not positive.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import losses
      >>> logits, labels = jnp.zeros((1, 1, 2)), jnp.array([[0, 1]])
      >>> losses.resized_cross_entropy_and_dice(logits, labels)[1]
      Array([0.5, 0.5], dtype=float32)

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section
      3.3; Isensee et al., "nnU-Net", 2021, methods.
    """
    losses, *sums = _terms(logits, labels, where, align_corners, block)
    return losses, _dice_loss(sums, smooth)


def _dice_loss(sums, smooth):
    intersection, prediction, target = sums
    return 1 - smooth_ratio(2 * intersection, prediction + target, smooth)


def _terms(logits, labels, where, align_corners, block):
    """The cross-entropy `[*b, h, w]`, and `Σpy`, `Σp` and `Σy` of each class, `[*b, c]`."""
    if logits.ndim < 3 or labels.ndim < 2 or labels.shape[:-2] != logits.shape[:-3]:
        raise ValueError(
            f"logits, labels: expected shapes [*b, low_h, low_w, c], [*b, h, w], got "
            f"{logits.shape}, {labels.shape}"
        )
    if block is not None and block < 1:
        raise ValueError(f"block: expected a positive number of pixels, or None, got {block}")
    *batch, height, width = labels.shape
    *_, low_height, low_width, num_classes = logits.shape
    labels, valid = valid_labels(labels, num_classes, where=where)
    images = jnp.asarray(logits, accumulation_dtype(logits))
    images = images.reshape(-1, low_height, low_width, num_classes)
    if (low_height, low_width) == (height, width):
        size = _divisor(height * width, block)
        blocks, expand = images.reshape(-1, size, num_classes), _identity
    else:
        rows = height if block is None else min(height, max(1, block // width))
        size = rows * width
        blocks, expand = _row_blocks(images, (height, width), rows, align_corners)
    count = len(blocks) // len(images)
    number = jnp.tile(jnp.arange(count), len(images))
    padding = ((0, 0), (0, count * size // width - height), (0, 0))
    labels, valid = (
        jnp.pad(x.reshape(-1, height, width), padding).reshape(-1, size) for x in (labels, valid)
    )
    over_blocks = _all_at_once if block is None else _one_by_one
    losses, *sums = _block_terms(expand, over_blocks)(blocks, number, labels, valid)
    losses = losses.reshape(len(images), -1, width)[:, :height]
    sums = (x.reshape(*batch, count, num_classes).sum(-2) for x in sums)
    return losses.reshape(*batch, height, width), *sums


def _identity(pixels, number):
    return pixels


def _all_at_once(function, arguments):
    return jax.vmap(lambda *x: function(x))(*arguments)


_one_by_one = jax.lax.map


def _divisor(pixels: int, block: int | None) -> int:
    """The largest block size that divides an image, so that it is split without a copy."""
    if block is None:
        return pixels
    return max(size for size in range(1, min(block, pixels) + 1) if pixels % size == 0)


def _row_blocks(images, shape, rows, align_corners):
    """The rows of `images` that each block of resized rows needs, and a function to resize them.

    The last block may extend below the image, where all weights are 0.
    """
    (height, width), low_height = shape, images.shape[1]
    count = math.ceil(height / rows)
    matrix = np.zeros((count * rows, low_height))
    matrix[:height] = resize_matrix(low_height, height, align_corners=align_corners)
    matrix = matrix.reshape(count, rows, low_height)
    used = [np.flatnonzero(weights.any(axis=0)) for weights in matrix]
    span = max(int(np.ptp(low_rows)) + 1 for low_rows in used)
    first = [min(int(low_rows[0]), low_height - span) for low_rows in used]
    index = np.array(first)[:, None] + np.arange(span)
    weights = np.take_along_axis(matrix, index[:, None, :], axis=2)

    def expand(low_rows, number):
        wide = resize(low_rows, (span, width), align_corners=align_corners)
        matrix = jnp.asarray(weights, wide.dtype)[number]
        high = jnp.matmul(matrix, wide.reshape(span, -1), precision=jax.lax.Precision.HIGHEST)
        return high.reshape(rows * width, -1)

    return images[:, index].reshape(count * len(images), span, *images.shape[2:]), expand


def _block_terms(expand: Callable, over_blocks: Callable) -> Callable:
    """A differentiable function of blocks to their terms; `expand` turns a block into logits."""

    def forward(arguments):
        block, number, labels, valid = arguments
        logits, labels = _valid_only(expand(block, number), labels, valid)
        probs, losses = _probs_and_losses(logits, labels)
        by_class = jnp.zeros(logits.shape[-1], logits.dtype)
        intersection = by_class.at[labels].add(jnp.where(valid, jnp.exp(-losses), 0))
        prediction = jnp.sum(jnp.where(valid[:, None], probs, 0), axis=0)
        target = by_class.at[labels].add(valid)
        return jnp.where(valid, losses, 0), intersection, prediction, target

    def backward(arguments):
        """The gradient of a block, from those of the losses, of `Σpy` and of `Σp`."""
        block, number, labels, valid, d_losses, d_intersection, d_prediction = arguments
        logits, transpose = jax.vjp(lambda block: expand(block, number), block)
        logits, labels = _valid_only(logits, labels, valid)
        probs, losses = _probs_and_losses(logits, labels)
        target_prob = jnp.exp(-losses)
        through_target = target_prob * d_intersection[labels] - d_losses
        through_sum = -through_target - jnp.sum(probs * d_prediction, axis=-1)
        d_target = target_prob * (through_sum + d_prediction[labels]) + through_target
        # A choice instead of a sum, whose parts XLA would store on a CPU.
        gradient = jnp.where(
            labels[:, None] == jnp.arange(logits.shape[-1]),
            d_target[:, None],
            probs * (through_sum[:, None] + d_prediction),
        )
        return transpose(jnp.where(valid[:, None], gradient, 0))[0]

    @jax.custom_vjp
    def terms(*arguments):
        return over_blocks(forward, arguments)

    def terms_forward(*arguments):
        return over_blocks(forward, arguments), arguments

    def terms_backward(arguments, gradients):
        gradient = over_blocks(backward, (*arguments, *gradients[:3]))
        return gradient, None, None, None

    terms.defvjp(terms_forward, terms_backward)
    return terms


def _valid_only(logits, labels, valid):
    return jnp.where(valid[:, None], logits, 0), jnp.where(valid, labels, 0)


def _probs_and_losses(logits, labels):
    """`p` and `−log p_y` of pixels `[n, c]`."""
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    normalizer = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    target = jnp.take_along_axis(shifted, labels[:, None], axis=-1)[:, 0]
    return jnp.exp(shifted - normalizer[:, None]), normalizer - target
