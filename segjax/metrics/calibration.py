"""Calibration: whether predicted probabilities match how often predictions are right."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer

from segjax.labels import valid_labels
from segjax.metrics.sums import Sums
from segjax.numerics import accumulation_dtype, safe_divide
from segjax.typing import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class CalibrationScores:
    """Expected calibration error and reliability diagram.

    Attributes:
      error: `Σ_m share_m |accuracy_m − confidence_m|`, in 0..1; 0 without any pixel.
      share: `[bins]`, fraction of all pixels in each bin.
      accuracy: `[bins]`, fraction of a bin's pixels whose predicted class is right; 0 if empty.
      confidence: `[bins]`, mean probability of the predicted class; 0 if empty.
    """

    error: Float[Array, "*b"]
    share: Float[Array, "*b bins"]
    accuracy: Float[Array, "*b bins"]
    confidence: Float[Array, "*b bins"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Calibration(Sums):
    """Sums for calibration: pixels in bins of equal width by the probability of their class.

    Attributes:
      pixels: int32 `[bins]`, number of pixels.
      correct: int32 `[bins]`, number of pixels whose predicted class is right.
      confidence: `[bins]`, sum of the probabilities of the predicted classes.

    Example:
      >>> from segjax import metrics
      >>> metrics.Calibration.empty(3).pixels
      Array([0, 0, 0], dtype=int32)
    """

    pixels: Int[Array, "*b bins"]
    correct: Int[Array, "*b bins"]
    confidence: Float[Array, "*b bins"]

    @classmethod
    def empty(cls, bins: int = 15) -> "Calibration":
        """The metric of no pixels."""
        none = jnp.zeros(bins, jnp.int32)
        return cls(none, none, jnp.zeros(bins))

    def update(
        self,
        probs: Float[Array, "*b c"],
        labels: Integer[Array, "*b"],
        *,
        where: Bool[Array, "..."] | None = None,
    ) -> "Calibration":
        """Add a batch; the arguments are those of `expected_calibration_error`."""
        bins = self.pixels.shape[-1]
        return self.merge(expected_calibration_error(probs, labels, bins=bins, where=where))

    def compute(self) -> CalibrationScores:
        """The calibration error, and share, accuracy and confidence of each bin."""
        total = self.pixels.sum(-1, keepdims=True)
        return CalibrationScores(
            error=safe_divide(jnp.abs(self.correct - self.confidence).sum(-1), total[..., 0]),
            share=safe_divide(self.pixels, total),
            accuracy=safe_divide(self.correct, self.pixels),
            confidence=safe_divide(self.confidence, self.pixels),
        )


def expected_calibration_error(
    probs: Float[Array, "*b c"],
    labels: Integer[Array, "*b"],
    *,
    bins: int = 15,
    where: Bool[Array, "..."] | None = None,
) -> Calibration:
    """Expected calibration error (ECE): `Σ_m share_m |accuracy_m − confidence_m|` over bins.

    Returns sums over a batch, whose `compute` gives the error. The confidence of a pixel is the
    probability of its most probable class. Bin m of M contains confidences in `(m/M, (m+1)/M]`, and
    the first bin also 0.

    Args:
      probs: `[*b, h, w, c]`, in 0..1.
      labels: integers `[*b, h, w]` in 0..c−1; others are void.
      bins: Number of bins M, static.
      where: Broadcasts to `labels`; False for void pixels.

    Returns:
      Sums over all pixels of each bin, `[bins]`.

    Raises:
      ValueError: If the shapes do not fit together, or `bins` is not positive.
      TypeError: If `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> probs = jnp.array([[0.9, 0.1], [0.4, 0.6]])
      >>> scores = metrics.expected_calibration_error(probs, jnp.array([0, 0]), bins=2).compute()
      >>> scores.accuracy
      Array([0. , 0.5], dtype=float32)

    References:
      Guo et al., "On calibration of modern neural networks", 2017, equation 3.
    """
    if probs.shape[:-1] != labels.shape:
        raise ValueError(
            f"probs: expected shape {(*labels.shape, 'c')}, as labels, got {probs.shape}"
        )
    if bins < 1:
        raise ValueError(f"bins: expected at least 1, got {bins}")
    labels, counted = valid_labels(labels, probs.shape[-1], where=where)
    confidence = jnp.max(probs, axis=-1).astype(accumulation_dtype(probs))
    correct = jnp.argmax(probs, axis=-1) == labels
    edges = jnp.arange(1, bins, dtype=confidence.dtype) / bins
    place = jnp.sum(confidence[..., None] > edges, axis=-1)
    member = (place[..., None] == jnp.arange(bins)) & counted[..., None]
    pixels = tuple(range(labels.ndim))
    return Calibration(
        pixels=jnp.sum(member, axis=pixels, dtype=jnp.int32),
        correct=jnp.sum(member & correct[..., None], axis=pixels, dtype=jnp.int32),
        confidence=jnp.sum(jnp.where(member, confidence[..., None], 0), axis=pixels),
    )
