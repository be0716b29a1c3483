"""Confusion matrices and the scores computed from them: IoU, Dice, accuracy."""

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
    """Scores of a confusion matrix, each in 0..1, by the functions of the same names.

    Attributes:
      mean_iou: Mean IoU over the classes labelled or predicted anywhere.
      dice_score: Mean Dice coefficient over the same classes.
      pixel_accuracy: Fraction of pixels whose prediction is the label.
      frequency_weighted_iou: Mean IoU weighted by the number of labelled pixels.
      class_iou: `[c]`, IoU of each class.
      class_dice: `[c]`, Dice coefficient of each class.
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
    """A confusion matrix as a metric that can be updated and merged.

    Attributes:
      counts: integers `[c, c]`, pixels of each (label, prediction).

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> metric = metrics.ConfusionMatrix.empty(2).update(jnp.array([0, 1]), jnp.array([0, 1]))
      >>> float(metric.compute().mean_iou)
      1.0
    """

    counts: Integer[Array, "*b c c"]

    @classmethod
    def empty(cls, num_classes: int) -> "ConfusionMatrix":
        """The metric of no pixels."""
        return cls(jnp.zeros((num_classes, num_classes), jnp.int32))

    def update(
        self,
        predictions: Integer[Array, "*b"],
        labels: Integer[Array, "*b"],
        *,
        where: Bool[Array, "..."] | None = None,
    ) -> "ConfusionMatrix":
        """Add a batch; the arguments are those of `confusion_matrix`."""
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
    """Confusion matrix: `n_ij = |{labels = i, predictions = j}|`, rows are labels.

    Matrices of batches, devices and hosts can be added. An entry holds up to 2³¹ − 1 pixels; larger
    sums belong on the host, as int64.

    Args:
      predictions: integers `[*b, h, w]`.
      labels: integers `[*b, h, w]`.
      num_classes: c, static.
      where: Broadcasts to `[*b, h, w]`; False for void pixels.

    Returns:
      int32 `[c, c]`, in pixels; the row is the label, the column the prediction. Pixels whose
      label or prediction is outside 0..c−1 are left out.

    Raises:
      ValueError: If the shapes do not fit together, or `num_classes` is not positive.
      TypeError: If `predictions` or `labels` is not integer, or `where` not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> metrics.confusion_matrix(jnp.array([0, 1, 1]), jnp.array([0, 0, 1]), 2)
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
    """Intersection over union (IoU) of every class: `n_cc / (Σ_j n_cj + Σ_i n_ic − n_cc)`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b, c]`, in 0..1, at least float32; 1 for a class neither labelled nor predicted.

    Raises:
      ValueError: If `matrix` is not square.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> metrics.class_iou(jnp.array([[1, 1, 0], [0, 3, 0], [0, 0, 0]]))
      Array([0.5 , 0.75, 1.  ], dtype=float32)

    References:
      Everingham et al., "The PASCAL visual object classes (VOC) challenge", 2010.
    """
    correct, labelled, predicted = _class_counts(matrix)
    return safe_divide(correct, labelled + predicted - correct, default=1.0)


def class_dice(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b c"]:
    """Dice coefficient (F1 score) of every class: `2 n_cc / (Σ_j n_cj + Σ_i n_ic)`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b, c]`, in 0..1, at least float32; 1 for a class neither labelled nor predicted.

    Raises:
      ValueError: If `matrix` is not square.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> metrics.class_dice(jnp.array([[3, 2, 0], [0, 1, 0], [0, 0, 0]]))
      Array([0.75, 0.5 , 1.  ], dtype=float32)

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
    """Mean IoU (mIoU) over the classes labelled or predicted anywhere.

    With the IoU of a class `I_c / U_c` and its labelled pixels `n_c`, the averages are:
    "macro", the mean of `I_c / U_c`; "micro", `Σ_c I_c / Σ_c U_c`; "weighted",
    `Σ_c n_c IoU_c / Σ_c n_c` (`frequency_weighted_iou`); and "generalized",
    `Σ_c w_c I_c / Σ_c w_c U_c` with `w_c = 1/n_c²`, or 0 for a class that is not labelled.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.
      average: "macro", "micro", "weighted" or "generalized".
      where: Broadcasts to `[*b, c]`; True for the classes to average over, such as all but the
        background. None for all.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 if none of the classes is labelled or predicted.

    Raises:
      ValueError: If `matrix` is not square, or `average` is unknown.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> float(metrics.mean_iou(jnp.array([[1, 1, 0], [0, 3, 0], [0, 0, 0]])))
      0.625

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
    """Mean Dice coefficient over the classes labelled or predicted anywhere.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.
      average: "macro", "micro", "weighted" or "generalized", as in `mean_iou`; the last is the
        generalized Dice score.
      where: Broadcasts to `[*b, c]`; True for the classes to average over, such as all but the
        background. None for all.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 if none of the classes is labelled or predicted.

    Raises:
      ValueError: If `matrix` is not square, or `average` is unknown.
      TypeError: If `where` is not boolean.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> float(metrics.dice_score(jnp.array([[3, 2, 0], [0, 1, 0], [0, 0, 0]])))
      0.625

    References:
      Dice, "Measures of the amount of ecologic association between species", 1945;
      generalised by Crum et al., "Generalized overlap measures for evaluation and validation in
      medical image analysis", 2006.
    """
    correct, labelled, predicted = _class_counts(matrix)
    return _average(2 * correct, labelled + predicted, labelled, average, where)


def pixel_accuracy(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b"]:
    """Pixel accuracy, the fraction of pixels whose prediction is the label: `Σ_c n_cc / Σ_ij n_ij`.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 without any pixel.

    Raises:
      ValueError: If `matrix` is not square.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> float(metrics.pixel_accuracy(jnp.array([[1, 1], [0, 2]])))
      0.75

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section 5.
    """
    correct, labelled, _ = _class_counts(matrix)
    return safe_divide(correct.sum(-1), labelled.sum(-1), default=1.0)


def frequency_weighted_iou(matrix: Num[Array, "*b c c"]) -> Float[jax.Array, "*b"]:
    """Frequency-weighted IoU: `Σ_c f_c IoU_c`, with `f_c` the fraction of pixels labelled c.

    Args:
      matrix: `[*b, c, c]`, a confusion matrix in pixels (row: label), or a sum of them.

    Returns:
      `[*b]`, in 0..1, at least float32; 1 without any pixel.

    Raises:
      ValueError: If `matrix` is not square.

    Example:
      >>> import jax.numpy as jnp
      >>> from segjax import metrics
      >>> round(float(metrics.frequency_weighted_iou(jnp.array([[1, 1], [0, 2]]))), 3)
      0.583

    References:
      Long et al., "Fully convolutional networks for semantic segmentation", 2015, section 5.
    """
    return mean_iou(matrix, average="weighted")


def _class_counts(matrix: Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Pixels of each class that are correct, labelled and predicted, `[*b, c]` each."""
    if matrix.ndim < 2 or matrix.shape[-1] != matrix.shape[-2]:
        raise ValueError(f"matrix: expected shape [*b, c, c], got {matrix.shape}")
    # The cast comes before jnp.asarray, which would truncate int64 from the host to int32.
    counts = jnp.asarray(matrix.astype(accumulation_dtype(matrix)))
    return jnp.diagonal(counts, axis1=-2, axis2=-1), counts.sum(-1), counts.sum(-2)


def _average(
    overlap: jax.Array, size: jax.Array, labelled: jax.Array, average: str, where: Array | None
) -> jax.Array:
    """The average over classes of the scores `overlap / size`, both `[*b, c]`."""
    present = broadcast_where(where, size.shape) & (size > 0)
    if average in ("macro", "weighted"):
        overlap, size = safe_divide(overlap, size), jnp.ones_like(size)
    if average in ("macro", "micro"):
        weights = present
    elif average == "weighted":
        weights = jnp.where(present, labelled, 0)
    elif average == "generalized":
        # Relative to the largest weight, as the squares of large counts lose digits.
        labelled = jnp.where(present, labelled, 0)
        rarest = jnp.min(labelled, axis=-1, keepdims=True, where=labelled > 0, initial=jnp.inf)
        weights = jnp.where(labelled > 0, safe_divide(rarest, labelled) ** 2, 0)
    else:
        raise ValueError(
            f'average: expected "macro", "micro", "weighted" or "generalized", got {average!r}'
        )
    score = safe_divide((weights * overlap).sum(-1), (weights * size).sum(-1))
    return jnp.where(present.any(-1), score, 1)
