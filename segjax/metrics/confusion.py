"""The confusion matrix of a labelling, and the scores that follow from it."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Bool, Float, Int, Integer, Num

from segjax.labels import as_int32
from segjax.metrics.counting import count_pairs
from segjax.metrics.sums import Sums
from segjax.numerics import accumulation_dtype, broadcast_where, safe_divide
from segjax.typing import Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SegmentationScores:
    """What follows from a confusion matrix, each in 0..1, by the functions of these names below.

    Attributes:
      mean_iou: of the classes labelled or predicted anywhere.
      dice_score: likewise.
      pixel_accuracy: the share of pixels predicted as labelled.
      frequency_weighted_iou: each class by its share of the labels.
      class_iou: `[c]`.
      class_dice: `[c]`.
    """

    mean_iou: Float[Array, "*b"]
    dice_score: Float[Array, "*b"]
    pixel_accuracy: Float[Array, "*b"]
    frequency_weighted_iou: Float[Array, "*b"]
    class_iou: Float[Array, "*b c"]
    class_dice: Float[Array, "*b c"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ConfusionMatrix(Sums):
    """A `confusion_matrix` as a metric like the others.

    Attributes:
      counts: integers `[c, c]`, in pixels; the row is the label, the column the prediction.

    Example:
      >>> metric = ConfusionMatrix.empty(2).update(jnp.array([0, 1]), jnp.array([0, 1]))
      >>> float(metric.compute().mean_iou)
      1.0
    """

    counts: Integer[Array, "*b c c"]

    @classmethod
    def empty(cls, num_classes: int) -> "ConfusionMatrix":
        """That of no pixel."""
        return cls(jnp.zeros((num_classes, num_classes), jnp.int32))

    def update(
        self,
        predictions: Integer[Array, "*b"],
        labels: Integer[Array, "*b"],
        *,
        where: Bool[Array, "..."] | None = None,
    ) -> "ConfusionMatrix":
        """With another batch; its arguments are those of `confusion_matrix`."""
        num_classes = self.counts.shape[-1]
        return self.merge(
            ConfusionMatrix(confusion_matrix(predictions, labels, num_classes, where=where))
        )

    def compute(self) -> SegmentationScores:
        """All scores of the matrix."""
        return SegmentationScores(
            mean_iou=mean_iou(self.counts),
            dice_score=dice_score(self.counts),
            pixel_accuracy=pixel_accuracy(self.counts),
            frequency_weighted_iou=frequency_weighted_iou(self.counts),
            class_iou=class_iou(self.counts),
            class_dice=class_dice(self.counts),
        )


def confusion_matrix(
    predictions: Integer[Array, "*b"],
    labels: Integer[Array, "*b"],
    num_classes: int,
    *,
    where: Bool[Array, "..."] | None = None,
) -> Int[jax.Array, "{num_classes} {num_classes}"]:
    """How often each label was predicted as each class: `n_ij = |{labels = i, predictions = j}|`.

    Matrices of batches, devices and hosts add up. An entry holds 2³¹ − 1 pixels at most: sums over
    more of them belong on the host, in int64.

    Args:
      predictions: integers `[*b, h, w]`.
      labels: integers `[*b, h, w]`.
      num_classes: c, static.
      where: broadcasts to `[*b, h, w]`; False for void pixels.

    Returns:
      int32 `[c, c]`, in pixels; the row is the label, the column the prediction. Pixels whose
      label or prediction is not in 0..c−1 are left out.

    Raises:
      ValueError: if the shapes do not fit together, or `num_classes` is not positive.
      TypeError: if `predictions` or `labels` is not integer, or `where` not boolean.

    Example:
      >>> confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 0, 1]), 2)
      Array([[1, 1],
             [0, 1]], dtype=int32)

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section 5.
    """
    if predictions.shape != labels.shape:
        raise ValueError(
            f"predictions: expected the shape of labels, {labels.shape}, got {predictions.shape}"
        )
    if num_classes < 1:
        raise ValueError(f"num_classes: expected at least 1, got {num_classes}")
    if where is not None:
        where = broadcast_where(where, labels.shape)
    pairs = as_int32(labels), as_int32(predictions, name="predictions")
    return count_pairs(*pairs, (num_classes, num_classes), where=where)


def class_iou(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b c"]:
    """The intersection over union of every class: `n_cc / (Σ_j n_cj + Σ_i n_ic − n_cc)`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b, c]`, in 0..1, at least float32; 1 for a class neither labelled nor predicted.

    Raises:
      ValueError: if `matrix` is not square.

    Example:
      >>> class_iou(jnp.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]))
      Array([0.5      , 0.6666667, 1.       ], dtype=float32)

    References:
      Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010.
    """
    correct, labelled, predicted = _class_counts(matrix)
    return safe_divide(correct, labelled + predicted - correct, default=1.0)


def class_dice(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b c"]:
    """The Dice coefficient (F1) of every class: `2 n_cc / (Σ_j n_cj + Σ_i n_ic)`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b, c]`, in 0..1, at least float32; 1 for a class neither labelled nor predicted.

    Raises:
      ValueError: if `matrix` is not square.

    Example:
      >>> class_dice(jnp.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]]))
      Array([0.6666667, 0.8      , 1.       ], dtype=float32)

    References:
      Dice, "Measures of the amount of ecologic association between species", 1945.
    """
    correct, labelled, predicted = _class_counts(matrix)
    return safe_divide(2 * correct, labelled + predicted, default=1.0)


def mean_iou(
    matrix: Num[Array, "*b c c"],
    *,
    average: str = "macro",
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The mean of `class_iou` over the classes labelled or predicted anywhere.

    That is "macro". With `I_c / U_c` the IoU of a class and `n_c` its labelled pixels, "micro" is
    `Σ_c I_c / Σ_c U_c`, "weighted" `Σ_c n_c IoU_c / Σ_c n_c` (`frequency_weighted_iou`), and
    "generalized" `Σ_c w_c I_c / Σ_c w_c U_c` with `w_c = 1/n_c²`, 0 for a class not labelled.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.
      average: "macro", "micro", "weighted" or "generalized".
      where: broadcasts to `[*b, c]`; the classes that are averaged over, such as all but the
        background. None for all.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 where no class that is averaged over is there.

    Raises:
      ValueError: if `matrix` is not square, or `average` is another.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(mean_iou(jnp.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]])))
      0.5833333730697632

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section 5.
    """
    correct, labelled, predicted = _class_counts(matrix)
    return _average(correct, labelled + predicted - correct, labelled, average, where)


def dice_score(
    matrix: Num[Array, "*b c c"],
    *,
    average: str = "macro",
    where: Bool[Array, "..."] | None = None,
) -> Float[jax.Array, "*b"]:
    """The mean of `class_dice` over the classes labelled or predicted anywhere.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.
      average: "macro", "micro", "weighted" or "generalized", as in `mean_iou`; the last is the
        generalised Dice score.
      where: as in `mean_iou`: broadcasts to `[*b, c]`, the classes that are averaged over.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 where no class that is averaged over is there.

    Raises:
      ValueError: if `matrix` is not square, or `average` is another.
      TypeError: if `where` is not boolean.

    Example:
      >>> float(dice_score(jnp.array([[1, 1, 0], [0, 2, 0], [0, 0, 0]])))
      0.7333333492279053

    References:
      Dice, "Measures of the amount of ecologic association between species", 1945;
      generalised by Crum et al., "Generalized overlap measures for evaluation and validation in
      medical image analysis", 2006.
    """
    correct, labelled, predicted = _class_counts(matrix)
    return _average(2 * correct, labelled + predicted, labelled, average, where)


def pixel_accuracy(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b"]:
    """The share of pixels predicted as labelled: `Σ_c n_cc / Σ_ij n_ij`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 where no pixel was counted.

    Raises:
      ValueError: if `matrix` is not square.

    Example:
      >>> float(pixel_accuracy(jnp.array([[1, 1], [0, 2]])))
      0.75

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section 5.
    """
    correct, labelled, _ = _class_counts(matrix)
    return safe_divide(correct.sum(-1), labelled.sum(-1), default=1.0)


def frequency_weighted_iou(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b"]:
    """The mean of `class_iou`, each class by its share of the labels: `Σ_c f_c IoU_c`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 where no pixel was counted.

    Raises:
      ValueError: if `matrix` is not square.

    Example:
      >>> float(frequency_weighted_iou(jnp.array([[1, 1], [0, 2]])))
      0.5833333730697632

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section 5.
    """
    return mean_iou(matrix, average="weighted")


def _class_counts(matrix: Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The pixels `[*b, c]` of each class that are correct, labelled so, and predicted so."""
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"matrix: expected shape [*b, c, c], got {matrix.shape}")
    # The cast comes before jnp.asarray, which would cut a host's int64 down to int32.
    counts = jnp.asarray(matrix.astype(accumulation_dtype(matrix)))
    return jnp.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _average(
    overlap: jax.Array, size: jax.Array, labelled: jax.Array, average: str, where: Array | None
) -> jax.Array:
    """The average over classes of the scores `overlap / size`, `[*b, c]` each."""
    present = broadcast_where(where, size.shape) & (size > 0)
    if average in ("macro", "weighted"):
        overlap, size = safe_divide(overlap, size), jnp.ones_like(size)
    if average in ("macro", "micro"):
        weights = present
    elif average == "weighted":
        weights = jnp.where(present, labelled, 0)
    elif average == "generalized":
        # As multiples of the largest: the square of many pixels may have too many digits.
        labelled = jnp.where(present, labelled, 0)
        rarest = jnp.min(labelled, axis=-1, keepdims=True, where=labelled > 0, initial=jnp.inf)
        weights = jnp.where(labelled > 0, safe_divide(rarest, labelled) ** 2, 0)
    else:
        raise ValueError(
            f'average: expected "macro", "micro", "weighted" or "generalized", got {average!r}'
        )
    score = safe_divide((weights * overlap).sum(-1), (weights * size).sum(-1))
    return jnp.where(present.any(-1), score, 1)
